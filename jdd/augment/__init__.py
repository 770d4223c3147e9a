"""Augmentations that gradients pass through."""
