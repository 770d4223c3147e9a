"""Images that stay on disk as 8-bit pixels; a row becomes floats when somebody asks for it."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from jdd.data.transform import Transform


class Streamed:
    """``array[rows]`` over a memory-mapped file of images: ``[n, h, w, c]``.

    Indexing reads what it names and no more, whatever n is; ``np.asarray`` reads all. Without a
    transform the rows are the file's own uint8 pixels, with one they are float32, in the space it
    maps to: x = transform.forward(pixels, 255), worked out of these rows alone. So normalised rows
    are the bits that the whole array in memory would have; whitened ones are equal to rounding, as
    products of matrices of another number of rows are.

    Args:
      pixels: uint8 ``[m, h, w, c]``, such as a ``numpy.memmap``.
      rows: integers ``[n]``, the rows of ``pixels`` in their order; None for all.
      transform: what a row goes through.
      name: stands for the content of ``pixels``.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: np.ndarray | None = None,
        transform: Transform | None = None,
        name: str = "",
    ):
        self._pixels, self._transform, self._name = pixels, transform, name
        self._rows = np.arange(len(pixels)) if rows is None else np.asarray(rows)
        self.shape = (len(self._rows), *pixels.shape[1:])
        self.ndim, self.size = len(self.shape), math.prod(self.shape)
        self.dtype = np.dtype(np.uint8 if transform is None else np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> np.ndarray:
        """Read ``[i]``, ``[lo:hi]``, ``[mask]`` or ``[integers]``, then the rest of a tuple."""
        first, rest = (at[0], at[1:]) if isinstance(at, tuple) else (at, ())
        rows = self._rows[first]
        found = self._read(np.atleast_1d(rows).ravel()).reshape(*np.shape(rows), *self.shape[1:])
        return found[(slice(None),) * np.ndim(rows) + rest] if rest else found

    def _read(self, rows: np.ndarray) -> np.ndarray:
        pixels = np.asarray(self._pixels[rows])
        return pixels if self._transform is None else self._transform.forward(pixels, 255.0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def part(self, which: Any) -> Streamed:
        """Return the images that ``which`` (mask, integers or slice) names; nothing is read."""
        return Streamed(self._pixels, self._rows[which], self._transform, self._name)

    def through(self, transform: Transform) -> Streamed:
        """Return the same images in the space that ``transform`` maps pixels to."""
        return Streamed(self._pixels, self._rows, transform, self._name)

    @property
    def identity(self) -> list[str]:
        """What stands for the pixels of these rows."""
        rows = np.ascontiguousarray(self._rows, "<i8")
        return [self._name, hashlib.sha256(rows.data).hexdigest()]


def part(images: Any, which: np.ndarray) -> Any:
    """Return the images that a mask or integers name: a copy, or of streamed ones no bytes yet."""
    return images.part(which) if isinstance(images, Streamed) else images[which]


def in_space(images: Any, transform: Transform, scale: float) -> Any:
    """Return stored images as ``transform`` maps them; streamed ones when they are read."""
    if isinstance(images, Streamed):
        return images.through(transform)
    return transform.forward(images, scale)
