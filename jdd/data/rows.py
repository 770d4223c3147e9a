"""Lazy selection of rows: indices now, values when an item is read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


class Rows:
    """Lazy ``array[rows]``: ``[i]`` reads one item, ``[lo:hi]`` stays lazy, np.asarray reads all.

    A step that processes its items one after another need not hold the real images of all of them
    (200 classes of 256 images of 64 x 64 x 3 take 2.5 GB).

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
        """Bytes of all selected rows."""
        return math.prod(self.shape) * self.dtype.itemsize
