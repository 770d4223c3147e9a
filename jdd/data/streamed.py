"""Images that stay on disk as 8-bit pixels; rows are converted to floats when they are read."""

from __future__ import annotations

import hashlib
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from jdd.data.transform import Transform
from jdd.errors import BadInput


class RowSums:
    """CRC-32 of each image of a file, compared when the image is first read.

    Args:
      sums: unsigned integers ``[m]``.
      path: the file, for errors; deleting its folder makes it again.
    """

    def __init__(self, sums: np.ndarray, path: Path):
        self._sums, self._path = sums, path
        self._left = np.ones(len(sums), bool)

    def validate(self, rows: np.ndarray, pixels: np.ndarray) -> None:
        """Refuse images whose bytes are not those that were written.

        Args:
          rows: integers ``[n]``.
          pixels: uint8 ``[n, h, w, c]``.

        Raises:
          BadInput: naming the first damaged image.
        """
        for row, image in zip(rows, pixels, strict=True):
            if self._left[row]:
                if zlib.crc32(np.ascontiguousarray(image).data) != self._sums[row]:
                    folder = self._path.parent
                    found = f"image {row} of {len(self._sums)} is damaged"
                    raise BadInput(str(self._path), found, f"delete {folder}: it is made again")
                self._left[row] = False


def sums_of(pixels: np.ndarray) -> np.ndarray:
    """Return the CRC-32 of each image, uint32 ``[n]``."""
    return np.array([zlib.crc32(np.ascontiguousarray(one).data) for one in pixels], np.uint32)


class Streamed:
    """``array[rows]`` over a memory-mapped file of images: ``[n, h, w, c]``.

    Indexing reads only the selected rows; ``np.asarray`` reads all. Without a transform rows are
    the file's uint8 pixels. With one they are float32 in a net's input space, x =
    transform.forward(pixels, 255), computed from these rows alone: normalised rows equal those of
    the whole array in memory bit for bit; whitened rows equal them up to rounding, since the
    matrix products have another number of rows.

    Args:
      pixels: uint8 ``[m, h, w, c]``, such as a ``numpy.memmap``.
      rows: integers ``[n]``, the rows of ``pixels`` in their order; None for all.
      transform: the map from pixels to a net's input space.
      name: identifies the content of ``pixels``.
      sums: checksums of the images; None for none.
    """

    def __init__(
        self,
        pixels: np.ndarray,
        rows: np.ndarray | None = None,
        transform: Transform | None = None,
        name: str = "",
        sums: RowSums | None = None,
    ):
        self._pixels, self._transform, self._name = pixels, transform, name
        self._sums = sums
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
        if self._sums is not None:
            self._sums.validate(rows, pixels)
        return pixels if self._transform is None else self._transform.forward(pixels, 255.0)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[:], dtype)

    def part(self, which: Any) -> Streamed:
        """Return the images that ``which`` (mask, integers or slice) selects; reads nothing."""
        return Streamed(self._pixels, self._rows[which], self._transform, self._name, self._sums)

    def through(self, transform: Transform) -> Streamed:
        """Return the same images in the space that ``transform`` maps pixels to."""
        return Streamed(self._pixels, self._rows, transform, self._name, self._sums)

    @property
    def identity(self) -> list[str]:
        """The identity of these rows' pixels: the name of the file and the selection."""
        rows = np.ascontiguousarray(self._rows, "<i8")
        return [self._name, hashlib.sha256(rows.data).hexdigest()]


def part(images: Any, which: np.ndarray) -> Any:
    """Return the images that a mask or integers select: a copy, or a lazy part of streamed ones."""
    return images.part(which) if isinstance(images, Streamed) else images[which]


def in_space(images: Any, transform: Transform, scale: float) -> Any:
    """Apply ``transform`` to stored images; to streamed images when they are read."""
    if isinstance(images, Streamed):
        return images.through(transform)
    return transform.forward(images, scale)
