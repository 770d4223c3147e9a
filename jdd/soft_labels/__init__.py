"""Soft labels of teachers: computing, storing, reading and training on them."""
