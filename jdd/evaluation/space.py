"""Real images in the input space of a product."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdd.data import Split, Streamed
from jdd.product.files import AnyProduct


def in_space_of(dset: AnyProduct, split: Split, data: Any) -> Split:
    """Return ``split`` in the input space of the set, by the set's normalisation and whitening."""
    ours, theirs = data.transform, dset.transform
    # zca_inverse is omitted: it follows from the matrix and is absent from a loaded set.
    fields = ("mean", "std", "zca_mean", "zca_matrix", "zca_image")
    pairs = [(getattr(ours, name), getattr(theirs, name)) for name in fields]
    same = all(
        b is not None and np.array_equal(a, b) if a is not None else b is None for a, b in pairs
    )
    if same:
        return split
    if isinstance(split.images, Streamed):
        return split._replace(images=split.images.through(theirs))
    return split._replace(images=theirs.forward(ours.inverse(split.images)))
