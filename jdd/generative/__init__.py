"""Generative models: their losses, samplers and measures."""
