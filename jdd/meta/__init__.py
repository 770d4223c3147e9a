"""Differentiating through training."""
