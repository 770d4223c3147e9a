"""Cost of fitting a ZCA whitening that is not yet fitted; this happens while reading the data."""

from __future__ import annotations

from functools import partial

import numpy as np

from jdd import rng
from jdd.data import Dataset, Streamed
from jdd.data.transform import FIT_BYTES, HELD_BYTES
from jdd.run.context import RunContext
from jdd.stages.base import Estimate, timed

_SIDE = 512  # side of the matrix timed in place of a larger one


def held(context: RunContext) -> int:
    """Return the bytes of the matrices and their inverses, for all datasets of a run."""
    return sum(HELD_BYTES * _size(data) ** 2 for data in _whitened(context))


def estimate(context: RunContext) -> Estimate:
    """Time products and eigenvectors of a small matrix, scaled with the cube of the side."""
    missing = [data for data in _whitened(context) if not data.transform.fitted]
    if not missing:
        return Estimate(0.0, 0, "in the cache")
    total, most, disk, notes = 0.0, 0, 0, list[str]()
    for data in missing:
        size, train = _size(data), len(data.train.labels)
        side = min(size, _SIDE)
        wide = rng.host(0, "estimate/whitening").standard_normal((side, side))
        narrow = wide.astype(np.float32)
        square = wide.T @ wide
        product = timed(partial(np.matmul, wide.T, wide))
        vectors = timed(partial(np.linalg.eigh, square))
        single = timed(partial(np.matmul, narrow.T, narrow))
        # The covariance, the matrix and its inverse; then every image through the matrix.
        total += product * (train / side * (size / side) ** 2 + 2 * (size / side) ** 3)
        total += vectors * (size / side) ** 3
        splits = [s for s in (data.train, data.val, data.test) if s is not None]
        mapped = sum(len(s.labels) for s in splits if not isinstance(s.images, Streamed))
        total += single * mapped / side * (size / side) ** 2
        most, disk = max(most, FIT_BYTES * size**2), disk + HELD_BYTES * size**2
        words = f"{data.transform.kind} of {train} images: a matrix of {size} x {size}, its "
        words += "eigenvectors and its inverse, by NumPy"
        notes.append(words + (f" (from one of {side} x {side})" if side < size else ""))
    return Estimate(total, most, "; ".join(notes), disk)


def _whitened(context: RunContext) -> list[Dataset]:
    found = [context.data] if context.source is context.data else [context.data, context.source]
    return [data for data in found if data.transform.whitens]


def _size(data: Dataset) -> int:
    height, width, channels = data.shape
    return height * width * channels
