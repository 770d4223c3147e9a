"""Reader of stored soft labels for training students, a few epochs at a time.

With ``data/prefetch.py`` the next piece is read while the students train on the current one.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jdd.soft_labels.store import LabelStore

Tree = Any
ROOM = 128 << 20  # bytes of labels per piece; at most three pieces are in memory


class LabelReader:
    """Reads the stored labels of ``k`` students in pieces; holds at most ``ROOM`` bytes per piece.

    Args:
      stores: ``k`` stores of one form, batch size and number of epochs; they may be one object.
      classes: the images' classes, int ``[k, n]``.
      epochs: the number of epochs to read.
      shared: inputs common to all students and steps (``soft_labels/objective.py``).
      weights: weights of the images' losses, ``[k, n]``; None for equal weights.
      together: epochs of a piece at most; 0: as many as ``ROOM`` holds.
    """

    def __init__(
        self,
        stores: Sequence[LabelStore],
        classes: np.ndarray,
        epochs: int,
        shared: Tree = None,
        weights: np.ndarray | None = None,
        together: int = 0,
    ):
        self._stores, self._classes, self.epochs = list(stores), np.asarray(classes), epochs
        self._weights = weights
        self.shared = shared or {}
        self._each = functools.cache(lambda i: self._stores[i].read_images())
        first = self._read(self._stores[0], 0)
        self.per_epoch = int(first["index"].shape[0])
        one = sum(leaf.nbytes for leaf in jax.tree.leaves(first))
        most = max(1, together or ROOM // (one * len(self._stores)))
        # A divisor: all pieces have one shape, so that the step is compiled once.
        self._together = max(d for d in range(1, epochs + 1) if epochs % d == 0 and d <= most)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Yield the steps ``lo .. hi`` of each piece."""
        size = self._together * self.per_epoch
        for lo in range(0, self.epochs * self.per_epoch, size):
            yield lo, lo + size

    def at(self, members: Sequence[int], lo: int) -> Tree:
        """Return the labels of the piece that starts at step ``lo``; students on axis 0."""
        epoch = lo // self.per_epoch
        read = functools.cache(lambda i: self._piece(self._stores[i], epoch))
        same = {id(store): i for i, store in enumerate(self._stores)}
        stores = [same[id(self._stores[i])] for i in members]
        rows = [{**read(i), "each": self._each(i)} for i in stores]
        stacked = jax.tree.map(lambda *a: np.stack(a), *rows)
        first = np.full(len(rows), lo, np.int32)
        found = {**stacked, "first": first, "classes": self._classes[list(members)]}
        if self._weights is not None:
            found["weights"] = np.asarray(self._weights[list(members)], np.float32)
        return found

    def _piece(self, store: LabelStore, epoch: int) -> Tree:
        found = [self._read(store, e) for e in range(epoch, epoch + self._together)]
        return jax.tree.map(lambda *a: np.concatenate(a), *found)

    @staticmethod
    def _read(store: LabelStore, epoch: int) -> Tree:
        index, views, soft = store.read(epoch)
        return {"index": index, "views": views, "soft": soft}
