"""Depth of a ConvNet by image size: the one rule for the nets and for the config's 'auto'."""

from __future__ import annotations


def auto_depth(shape: tuple[int, ...]) -> int:
    """Return the depth for images of ``shape`` (h, w, c): 3 up to 32 pixels, 4 up to 64, then 5.

    Smaller images get fewer blocks, so that the last normalisation still has a map of 2x2.
    """
    size = max(shape[:2])
    grown = 4 if shape[2] == 1 else 0  # one channel: padding 3 in the first convolution
    possible = (min(shape[:2]) + grown).bit_length() - 1
    return max(1, min(3 if size <= 32 else 4 if size <= 64 else 5, possible))
