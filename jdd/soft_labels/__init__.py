"""Soft labels of teachers: made, stored, read, learned from."""
