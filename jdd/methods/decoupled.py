"""Recipe and views of decoupled methods, whose images are labelled afterwards (relabel)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from jdd.augment import views
from jdd.errors import BadInput
from jdd.methods.base import Problem, recipe
from jdd.nets import averaging
from jdd.product.distilled_set import DistilledSet
from jdd.schema.decoupled import Decoupled
from jdd.schema.values import section
from jdd.soft_labels import maps
from jdd.specs import rded
from jdd.training.option import bound
from jdd.training.recipe import Recipe, of_keys
from jdd.training.schedules import Cosine


def dataset(problem: Problem, images: np.ndarray, steps: int, **more: Any) -> DistilledSet:
    """Return a class-major set with hard labels; its recipe refers to the stored soft labels."""
    config, data = cast(Decoupled, problem.config), problem.data
    labels = np.repeat(np.arange(data.classes, dtype=np.int32), config.ipc)
    made = recipe(problem, steps, **training(config)) | more
    # Augmentations are part of the stored views.
    made["augment"] = {"name": "none", "strategy": "", "align_corners": False}
    made["labels"] = {
        "kind": "stored",
        "store": "labels/set",
        "mode": config.relabel.mode,
        "form": config.relabel.form,
        "k": config.relabel.k,
        "teachers": [teacher.word for teacher in problem.teachers],
    }
    return DistilledSet(images, labels, "hard", None, made, data.transform)


def training(config: Decoupled) -> dict[str, Any]:
    """Return the training of a student as a recipe's section ``train``."""
    epochs = config.eval.epochs
    return Recipe(
        **of_keys(post=section(config.post)),
        lr=config.eval.lr,
        batch=config.eval.batch,
        epochs=epochs,
        passes=epochs,
        schedule=Cosine(**bound(Cosine, "post", section(config.post))),
        order="stored",
        norm_updates=2 if isinstance(config, rded.Config) and config.ref_bugs else 1,
    ).to_json()


def places(config: Decoupled, teachers: Sequence[Any]) -> tuple[int, ...]:
    """Return height and width of the teachers' label maps, () in other label modes.

    Raises:
      BadInput: a teacher has no label map, their sizes differ, or the shuffled strips do not divide
        them.
    """
    if config.relabel.mode != "map":
        return ()
    sizes = {teacher.word: maps.places(teacher.frozen) for teacher in teachers}
    lacking = [word for word, size in sizes.items() if size is None]
    where = "config.relabel.mode"
    if lacking:
        found = f"map, and the head of {', '.join(lacking)} does not read the mean of a map"
        allowed = f"static, or nets that do in config.squeeze.nets: {', '.join(averaging())}"
        raise BadInput(where, found, allowed)
    if len(set(sizes.values())) != 1:
        each = ", ".join(f"{word} {'x'.join(map(str, size or ()))}" for word, size in sizes.items())
        raise BadInput(where, f"map, of teachers whose maps differ: {each}", "maps of one size")
    found_size = next(iter(sizes.values())) or ()
    strips = config.relabel.shuffle
    if any(size % strips for size in found_size):
        found = f"{strips}, and the label maps have {'x'.join(map(str, found_size))} places"
        allowed = "a number that divides both, or --config.relabel.mode=static, views or online"
        raise BadInput("config.relabel.shuffle", found, allowed)
    return found_size


def spec(config: Decoupled, shape: tuple[int, ...]) -> views.Spec:
    """Return the spec of the views that teachers label and students train on, one per image.

    A padded crop shifts by an eighth of the side: 4 pixels of 32, 8 of 64.
    """
    relabel = config.relabel
    return views.Spec(
        crop=relabel.crop,
        scale=(relabel.min_scale, 1.0),
        pad=max(1, shape[0] // 8),
        flip=relabel.flip,
        shuffle=relabel.shuffle,
        own_shuffle=True,
        mix=relabel.mix,
        alpha=relabel.alpha,
        randaugment=relabel.randaugment,
        magnitude=relabel.magnitude,
    )
