"""Tiny images of classes of any sizes, written by formula."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np


def write(path: Path, counts: Sequence[int], test: int = 10) -> Path:
    """Write 8x8x3 images of classes bright in different places; return ``path``.

    Args:
      counts: training images of each class.
      test: test images of each class; 0 for no test split.
    """
    arrays = {}
    for part, seed, sizes in (("train", 0, counts), ("test", 1, [test] * len(counts))):
        labels = np.repeat(np.arange(len(counts)), sizes)
        if not len(labels):
            continue
        images = np.random.default_rng(seed).integers(50, 131, (len(labels), 8, 8, 3))
        for c in range(len(counts)):
            images[labels == c, c * 2 : c * 2 + 3, c : c + 4, c] += 90
        arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path
