"""The stored labels of a run's set and of the random images beside it: found, and checked; and
the teachers, where they label while students learn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import views
from jdd.distilled import DistilledSet
from jdd.errors import BadInput
from jdd.evaluation.lectures import Lectures
from jdd.evaluation.train_eval import Plan
from jdd.experts.teachers import trained
from jdd.labels import modes, teach
from jdd.labels.store import LabelStore
from jdd.methods import decoupled
from jdd.nets import Net
from jdd.work import Work

Tree = Any


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
    if not store.has_images():
        raise BadInput(str(place), "no labels of its images", "the folder labels/ of the same run")
    epochs, there = int(recipe["train"]["epochs"]), store.epochs()
    if there < epochs:
        allowed = f"--config.eval.epochs={there} or fewer" if there else "the run's own labels"
        raise BadInput(str(place), f"{there} epochs of labels, and {epochs} are asked for", allowed)
    return store


def teachers(work: Work, dset: DistilledSet, store: LabelStore) -> list[tuple[Net, Tree]]:
    """Return the nets that label in mode online, each with its variables.

    Raises:
      BadInput: they are not where the run has them, or beside the set; or others are.
    """
    words, made = dset.recipe["labels"]["teachers"], store.settings["teachers"]
    pairs = zip(words, made, strict=True)
    return [trained(str(word), one, work.data, work.squeeze_path) for word, one in pairs]


def lectures(
    work: Work,
    dset: DistilledSet,
    planned: Plan,
    stores: Sequence[LabelStore],
    classes: np.ndarray,
) -> tuple[Plan, Lectures]:
    """Return what students learn from ``stores``, and the plan with those who label online.

    Args:
      planned: the set's, with a lesson.
      classes: of the images, int ``[k, n]``.

    Raises:
      BadInput: as ``teachers``.
    """
    lesson, shared = planned.recipe.lesson, {}
    assert lesson is not None
    if lesson.online:
        found, made = teachers(work, dset, stores[0]), stores[0].settings
        planned = _with(planned, [net for net, _ in found], made["bn"], made["combine"])
        shared["teachers"] = tuple(jax.tree.map(jnp.asarray, own) for _, own in found)
    return planned, Lectures(stores, classes, planned.passes, shared)


def _with(planned: Plan, nets: Sequence[Net], bn: str, combine: str) -> Plan:
    assert planned.recipe.lesson is not None
    lesson = planned.recipe.lesson._replace(teachers=tuple(nets), bn=bn, combine=combine)
    return planned._replace(recipe=planned.recipe._replace(lesson=lesson))


def blank(
    work: Work, planned: Plan, classes: np.ndarray, steps: int
) -> tuple[Plan, dict[str, Any], dict[str, Any]]:
    """Return (plan, labels of ``steps`` steps, what nets share) as ``inner/lessons.py`` reads them,
    to foretell a cost.
    """
    config, relabel, lesson = work.config, work.config.relabel, planned.recipe.lesson
    assert lesson is not None
    batch, count, shared = min(planned.recipe.batch, len(classes)), work.data.classes, {}
    spec = decoupled.spec(config, work.data.shape)
    view = teach.drawer(spec, batch, tuple(work.data.shape[:2]))(rng.key(0, "estimate"))
    sizes = decoupled.places(config, work.teachers)
    soft = modes.of_view(lesson.mode, lesson.form, count, int(relabel.k))
    each = modes.of_image(lesson.mode, count, int(relabel.k), sizes)
    one = {
        "index": np.arange(batch, dtype=np.int32),
        "views": views.pack(view),
        "soft": {name: np.zeros((batch, *shape), dtype) for name, (shape, dtype) in soft.items()},
    }
    many = jax.tree.map(lambda a: np.broadcast_to(a, (steps, *a.shape)), one)
    own = {name: np.zeros((len(classes), *s), dtype) for name, (s, dtype) in each.items()}
    if lesson.online:
        untrained = work.blank.teachers
        shared["teachers"] = tuple(teacher.variables() for teacher in untrained)
        nets = [teacher.still for teacher in untrained]
        planned = _with(planned, nets, str(relabel.bn), str(relabel.combine))
    return (
        planned,
        {**many, "each": own, "first": np.zeros((), np.int32), "classes": classes},
        shared,
    )


def stored(recipe: Any) -> bool:
    """Tell whether a set's labels lie in a store and not in itself."""
    return bool(recipe["train"]["order"] == "stored")
