"""Differentiation through unrolled training."""
