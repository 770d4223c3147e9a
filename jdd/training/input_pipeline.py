"""Input pipeline of real images: whole on the device, or streamed batch by batch from disk.

In both cases ``epoch(e)`` yields ``(lo, hi, images, labels)``: pieces of the steps of epoch e with
the inputs of ``Fit.advance``. The same keys give the same permutations in both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd import parallel
from jdd.data.dataset import Split
from jdd.data.prefetch import Prefetcher
from jdd.data.streamed import Streamed
from jdd.run.session import Session
from jdd.training import orders
from jdd.training.recipe import Recipe

Tree = Any
ROOM = 64 << 20  # maximum bytes of images in a piece of more than one step
STEPS = 8  # maximum steps in a piece: signals are handled between pieces
READERS = 4  # threads that convert the file's pixels to floats

Step = tuple[int, int, Any, Any]


def fed(split: Split) -> bool:
    """Return whether the images of a split are streamed batch by batch."""
    return isinstance(split.images, Streamed)


class Whole(NamedTuple):
    """All images on the device, shared by all nets; pieces are sized by run time."""

    images: Tree
    labels: Tree
    per_epoch: int
    session: Session

    def epoch(self, epoch: int) -> Iterator[Step]:
        """Yield the pieces of an epoch."""
        first = epoch * self.per_epoch
        for lo, hi in self.session.paced(first, first + self.per_epoch):
            yield lo, hi, self.images, self.labels

    def close(self) -> None:
        """Do nothing: there are no threads."""


class Feed:
    """Prefetched batches: a thread reads pieces of a few steps, one piece ahead.

    Args:
      split: streamed images ``[n, h, w, c]`` and labels ``[n]``.
      recipe: the recipe of the batches; its order is ``shuffled``.
      own: the keys of the nets trained together, ``[members]``, as ``orders.Keys.own``.
      epochs: the epochs to be read, in order.
      devices: with one device, the images are placed on it; with several, each call places its own
        arrays, unless batches are ``shared``: then all images are on every device.
      session: receives the time waited, under ``stage``, and is checked for signals between pieces.
    """

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        own: jax.Array,
        epochs: range,
        devices: Sequence[jax.Device],
        session: Session | None = None,
        stage: str = "",
        shared: bool = False,
    ):
        self._split, self._own, self._session, self._stage = split, own, session, stage
        self._n = len(split.labels)
        self._batch = min(recipe.batch, self._n)
        self._per_epoch = recipe.steps_per_epoch(self._n)
        self._classes = recipe.classes if recipe.balanced else 0
        self._devices = devices if len(devices) == 1 or shared else ()
        step = len(own) * self._batch * int(np.prod(split.images.shape[1:])) * 4
        whole = self._n // self._batch
        self._steps = max(1, min(STEPS, whole, ROOM // step))
        self._readers = ThreadPoolExecutor(min(READERS, parallel.threads(READERS)))
        self._ahead = Prefetcher(self._read, self._pieces(epochs))
        self._coming = iter(self._ahead)

    def epoch(self, epoch: int) -> Iterator[Step]:
        """Yield the pieces of an epoch; the following pieces are read in the background."""
        begun, before = time.perf_counter(), self._ahead.waited
        for (lo, hi, _), (images, labels) in self._coming:
            yield lo, hi, images, labels
            if self._session is not None:
                self._session.check()
            if hi == (epoch + 1) * self._per_epoch:
                break
        if self._session is not None:
            ran = time.perf_counter() - begun
            self._session.wait(self._stage, self._ahead.waited - before, ran)

    def _pieces(self, epochs: range) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield steps ``lo``, ``hi`` and their rows ``[members, hi - lo, b]``."""
        whole, b = self._n // self._batch, self._batch
        for epoch in epochs:
            rows, first = self._order(epoch), epoch * self._per_epoch
            for lo in range(0, whole, self._steps):
                hi = min(lo + self._steps, whole)
                here = rows[:, lo * b : hi * b].reshape(len(rows), hi - lo, b)
                yield first + lo, first + hi, here
            if self._per_epoch > whole:  # the short last batch
                yield first + whole, first + whole + 1, rows[:, None, whole * b :]

    def _order(self, epoch: int) -> np.ndarray:
        if self._classes:
            draws = _balanced(self._classes)
            return np.asarray(draws(self._own, np.int32(epoch), self._split.labels))
        if self._per_epoch == 1:
            return np.broadcast_to(np.arange(self._n), (len(self._own), self._n))
        return np.asarray(_shuffles(self._n)(self._own, np.int32(epoch)))

    def _read(self, piece: tuple[int, int, np.ndarray]) -> tuple[Any, Any]:
        """Return images ``[members, steps, b, h, w, c]`` and labels of a piece's rows.

        A piece with fewer steps than the others is padded with zeros, which are never read: the
        program of a piece is compiled once, and once more for the short last batch.
        """
        rows = piece[2]
        members, steps, b = rows.shape
        size = self._steps if b == self._batch else 1
        images = np.zeros((members, size, b, *self._split.images.shape[1:]), np.float32)
        labels = np.zeros((members, size, b), self._split.labels.dtype)
        labels[:, :steps] = self._split.labels[rows]

        def read(at: tuple[int, int]) -> None:
            images[at] = self._split.images[rows[at]]

        list(self._readers.map(read, np.ndindex(members, steps)))
        if not self._devices:
            return images, labels
        there: tuple[Tree, Tree]
        if len(self._devices) == 1:
            there = jax.device_put((images, labels), self._devices[0])
        else:
            there = parallel.everywhere((images, labels), self._devices)
        jax.block_until_ready(there)
        return there

    def close(self) -> None:
        """Stop the threads."""
        self._ahead.close()
        self._readers.shutdown(cancel_futures=True)


@lru_cache(maxsize=16)
def _shuffles(n: int) -> Any:
    def one(key: jax.Array, epoch: jax.Array) -> jax.Array:
        return orders.shuffle(orders.Keys(key, key), epoch, n)

    return jax.jit(jax.vmap(one, in_axes=(0, None)))


@lru_cache(maxsize=16)
def _balanced(classes: int) -> Any:
    def one(key: jax.Array, epoch: jax.Array, labels: jax.Array) -> jax.Array:
        return orders.balanced(orders.Keys(key, key), epoch, labels, classes)

    return jax.jit(jax.vmap(one, in_axes=(0, None, None)))
