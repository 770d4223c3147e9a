"""Rows of an array that are named now and read when their turn comes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Rows:
    """``array[rows]``, of which ``[i]`` reads an item and ``[lo:hi]`` still reads nothing.

    ``np.asarray`` reads all. So a step that takes its items in turn need not hold the real images
    of all of them: of 200 classes of 256 images, 64 x 64 x 3, these are 2.5 GB.

    Args:
      array: ``[n, ...]``.
      rows: integers ``[items, ...]``.
    """

    def __init__(self, array: np.ndarray, rows: np.ndarray):
        self._array, self._rows = array, rows
        self.shape = (*rows.shape, *array.shape[1:])
        self.dtype = array.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return Rows(self._array, self._rows[at])
        return self._array[self._rows[at]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self._array[self._rows], dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of all that the rows name."""
        return math.prod(self.shape) * self.dtype.itemsize
