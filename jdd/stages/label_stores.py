"""Stored labels of a run's set and of its random baseline images, located and validated; and the
teachers for online labelling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import views
from jdd.errors import BadInput
from jdd.evaluation.train_eval import Plan
from jdd.matching import relations
from jdd.methods import decoupled
from jdd.nets import Net
from jdd.pretrained.teachers import trained
from jdd.product.distilled_set import DistilledSet
from jdd.run.context import RunContext
from jdd.soft_labels import modes
from jdd.soft_labels import teacher as labeller
from jdd.soft_labels.objective import DistillationLoss
from jdd.soft_labels.reader import LabelReader
from jdd.soft_labels.store import LabelStore, digest
from jdd.training.recipe import Recipe

Tree = Any


def labels(context: RunContext, dset: DistilledSet) -> LabelStore:
    """Return the store of a set's labels.

    Raises:
      BadInput: it is not next to the set, or is of other images.
    """
    return _store(context, str(dset.recipe["labels"]["store"]), dset.images, dset.recipe)


def random(context: RunContext, dset: DistilledSet, draws: np.ndarray) -> list[LabelStore]:
    """Return the stores of the random images' labels, ``draws`` ``[k, n, ...]``.

    Raises:
      BadInput: one is missing, or is of other images.
    """
    recipe = dset.recipe
    return [_store(context, f"labels/random-{i}", images, recipe) for i, images in enumerate(draws)]


def _store(context: RunContext, name: str, images: np.ndarray, recipe: Any) -> LabelStore:
    directory = context.set_directory / name
    if not directory.is_dir():
        raise BadInput(
            "the set's labels",
            f"not in {directory}",
            "the folder labels/ of its run, next to the set",
        )
    store = LabelStore.open(directory)
    if store.settings["images"] != digest(images):
        raise BadInput(
            str(directory), "labels of other images", "the folder labels/ of the same run"
        )
    if not store.has_images():
        raise BadInput(
            str(directory), "no labels of its images", "the folder labels/ of the same run"
        )
    epochs, available = int(recipe["train"]["epochs"]), store.epochs()
    if available < epochs:
        allowed = (
            f"--config.eval.epochs={available} or fewer" if available else "the run's own labels"
        )
        raise BadInput(
            str(directory), f"{available} epochs of labels, and {epochs} are asked for", allowed
        )
    return store


def teachers(context: RunContext, dset: DistilledSet, store: LabelStore) -> list[tuple[Net, Tree]]:
    """Return the nets that label in mode online, each with its variables.

    Raises:
      BadInput: they are neither in the run's directory nor next to the set, or they differ.
    """
    words, made = dset.recipe["labels"]["teachers"], store.settings["teachers"]
    pairs = zip(words, made, strict=True)
    return [trained(str(word), one, context.data, context.squeeze_path) for word, one in pairs]


def validate_relations(
    context: RunContext, train: Mapping[str, Any], made: Sequence[tuple[str, Net]]
) -> None:
    """Refuse relation graphs of students and teachers that cannot be compared.

    Args:
      train: a set's ``recipe["train"]``.
      made: the teachers, each with its name.

    Raises:
      BadInput: as ``relations.validate``.
    """
    weights = DistillationLoss("logits", 0, Recipe.from_json(train)).weights
    if weights.any:
        for name in context.config.nets:
            relations.validate(made, context.make_net(name), weights)


def label_reader(
    context: RunContext,
    dset: DistilledSet,
    planned: Plan,
    stores: Sequence[LabelStore],
    classes: np.ndarray,
    weights: np.ndarray | None = None,
) -> tuple[Plan, LabelReader]:
    """Return the plan, with the teachers if they label online, and the reader of ``stores``.

    Args:
      planned: the set's plan, with a ``DistillationLoss``.
      classes: classes of the images, int ``[k, n]``.
      weights: weights of their losses, ``[n]``; None for equal weights.

    Raises:
      BadInput: as ``teachers``.
    """
    distillation, shared = planned.recipe.distillation, {}
    assert distillation is not None
    if distillation.online:
        found, made = teachers(context, dset, stores[0]), stores[0].settings
        planned = _with(planned, [net for net, _ in found], made["bn"], made["combine"])
        shared["teachers"] = tuple(jax.tree.map(jnp.asarray, own) for _, own in found)
    each = None if weights is None else np.broadcast_to(weights, np.shape(classes))
    return planned, LabelReader(stores, classes, planned.passes, shared, each)


def _with(planned: Plan, nets: Sequence[Net], bn: str, combine: str) -> Plan:
    assert planned.recipe.distillation is not None
    distillation = planned.recipe.distillation._replace(
        teachers=tuple(nets), bn=bn, combine=combine
    )
    return planned._replace(recipe=planned.recipe.replace(distillation=distillation))


def blank(
    context: RunContext, planned: Plan, classes: np.ndarray, steps: int
) -> tuple[Plan, dict[str, Any], dict[str, Any]]:
    """Return (plan, labels of ``steps`` steps, entries shared by all nets) for a cost estimate.

    The labels have the format that ``soft_labels/objective.py`` reads.
    """
    config, relabel, distillation = (
        context.decoupled,
        context.decoupled.relabel,
        planned.recipe.distillation,
    )
    assert distillation is not None
    batch, count, shared = min(planned.recipe.batch, len(classes)), context.data.classes, {}
    spec = decoupled.spec(config, context.data.shape)
    view = labeller.drawer(spec, batch, tuple(context.data.shape[:2]))(rng.key(0, "estimate"))
    sizes = decoupled.places(config, context.teachers)
    soft = modes.of_view(distillation.mode, distillation.form, count, relabel.k)
    each = modes.of_image(distillation.mode, count, relabel.k, sizes)
    one = {
        "index": np.arange(batch, dtype=np.int32),
        "views": views.pack(view),
        "soft": {name: np.zeros((batch, *shape), dtype) for name, (shape, dtype) in soft.items()},
    }
    many = jax.tree.map(lambda a: np.broadcast_to(a, (steps, *a.shape)), one)
    own = {name: np.zeros((len(classes), *s), dtype) for name, (s, dtype) in each.items()}
    if distillation.online:
        untrained = context.blank.teachers
        shared["teachers"] = tuple(teacher.variables() for teacher in untrained)
        nets = [teacher.frozen for teacher in untrained]
        planned = _with(planned, nets, relabel.bn, relabel.combine)
    return (
        planned,
        {**many, "each": own, "first": np.zeros((), np.int32), "classes": classes},
        shared,
    )


def stored(recipe: Any) -> bool:
    """Return whether a set's labels are in a store and not in the set itself."""
    return bool(recipe["train"]["order"] == "stored")


def stored_bytes(context: RunContext, recipe: Mapping[str, Any]) -> int:
    """Return the bytes of a set's stored labels, with their views, on disk; 0 if it has none.

    Of the epochs that its recipe trains on. Teachers that label online are not counted.
    """
    if not stored(recipe):
        return 0
    directory = context.set_directory / str(recipe["labels"]["store"])
    names = ["images.npz", *(f"e{epoch:04d}.npz" for epoch in range(recipe["train"]["epochs"]))]
    return sum(path.stat().st_size for name in names if (path := directory / name).is_file())
