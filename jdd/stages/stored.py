"""The stored labels of a run's set and of the random images beside it: found, and checked."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from jdd.distilled import DistilledSet
from jdd.errors import BadInput
from jdd.labels.store import LabelStore
from jdd.work import Work


def digest(images: np.ndarray) -> str:
    """Return 16 hex digits that stand for images, as a store's settings hold them."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]


def labels(work: Work, dset: DistilledSet) -> LabelStore:
    """Return the store of a set's labels.

    Raises:
      BadInput: it is not beside the set, or is of other images.
    """
    return _store(work, str(dset.recipe["labels"]["store"]), dset.images)


def random(work: Work, dset: DistilledSet, draws: np.ndarray) -> list[LabelStore]:
    """Return the stores of the random images' labels, ``draws`` ``[k, n, ...]``.

    Raises:
      BadInput: one is missing, or is of other images.
    """
    return [_store(work, f"labels/random-{i}", images) for i, images in enumerate(draws)]


def _store(work: Work, name: str, images: np.ndarray) -> LabelStore:
    place = work.beside / name
    if not place.is_dir():
        raise BadInput(
            "the set's labels", f"not in {place}", "the folder labels/ of its run, beside the set"
        )
    store = LabelStore.open(place)
    if store.settings["images"] != digest(images):
        raise BadInput(str(place), "labels of other images", "the folder labels/ of the same run")
    return store


def stored(recipe: Any) -> bool:
    """Tell whether a set's labels lie in a store and not in itself."""
    return bool(recipe["train"]["order"] == "stored")
