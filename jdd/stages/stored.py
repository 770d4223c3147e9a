"""The stored labels of a run's set and of the random images beside it: found, and checked."""

from __future__ import annotations

import hashlib
from typing import Any

import jax
import numpy as np

from jdd import rng
from jdd.augment import views
from jdd.distilled import DistilledSet
from jdd.errors import BadInput
from jdd.inner import fit
from jdd.labels import forms
from jdd.labels.store import LabelStore
from jdd.methods import decoupled
from jdd.work import Work


def digest(images: np.ndarray) -> str:
    """Return 16 hex digits that stand for images, as a store's settings hold them."""
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]


def labels(work: Work, dset: DistilledSet) -> LabelStore:
    """Return the store of a set's labels.

    Raises:
      BadInput: it is not beside the set, or is of other images.
    """
    return _store(work, str(dset.recipe["labels"]["store"]), dset.images, dset.recipe)


def random(work: Work, dset: DistilledSet, draws: np.ndarray) -> list[LabelStore]:
    """Return the stores of the random images' labels, ``draws`` ``[k, n, ...]``.

    Raises:
      BadInput: one is missing, or is of other images.
    """
    recipe = dset.recipe
    return [_store(work, f"labels/random-{i}", images, recipe) for i, images in enumerate(draws)]


def _store(work: Work, name: str, images: np.ndarray, recipe: Any) -> LabelStore:
    place = work.beside / name
    if not place.is_dir():
        raise BadInput(
            "the set's labels", f"not in {place}", "the folder labels/ of its run, beside the set"
        )
    store = LabelStore.open(place)
    if store.settings["images"] != digest(images):
        raise BadInput(str(place), "labels of other images", "the folder labels/ of the same run")
    epochs, there = int(recipe["train"]["epochs"]), store.epochs()
    if there < epochs:
        allowed = f"--config.eval.epochs={there} or fewer" if there else "the run's own labels"
        raise BadInput(str(place), f"{there} epochs of labels, and {epochs} are asked for", allowed)
    return store


def blank(work: Work, recipe: fit.Recipe, classes: np.ndarray, steps: int) -> dict[str, Any]:
    """Return labels of ``steps`` steps as ``inner/lessons.py`` reads them, to foretell a cost."""
    config, batch = work.config, min(recipe.batch, len(classes))
    spec = decoupled.spec(config, work.data.shape)
    view = views.draw(rng.key(0, "estimate"), batch, work.data.shape, spec)
    logits = np.zeros((batch, work.data.classes), np.float32)
    form, k = str(config.relabel.form), int(config.relabel.k)
    one = {
        "index": np.arange(batch, dtype=np.int32),
        "views": views.pack(view),
        "soft": forms.encode(logits, form, k, float(config.post.temperature)),
    }
    many = jax.tree.map(lambda a: np.broadcast_to(a, (steps, *a.shape)), one)
    return {**many, "first": np.zeros((), np.int32), "classes": classes}


def stored(recipe: Any) -> bool:
    """Tell whether a set's labels lie in a store and not in itself."""
    return bool(recipe["train"]["order"] == "stored")
