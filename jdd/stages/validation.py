"""Validation of an evaluation before anything is written: products, data, baselines."""

from __future__ import annotations

from typing import Any

import numpy as np

from jdd.data import class_names
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.run.context import RunContext
from jdd.stages import label_stores, pairs
from jdd.stages.initial_variables import initial_variables


def validate_data(dset: AnyProduct, data: Any) -> tuple[str, ...]:
    """Return notes on the classes of a set; refuse a set that does not match the dataset.

    Raises:
      BadInput: images of another shape, or classes that are not the dataset's, in its order.
    """
    if isinstance(dset, PairSet):
        return pairs.validate_data(dset, data)
    shape = dset.architecture["shape"] if isinstance(dset, GeneratorSet) else dset.images.shape[1:]
    if tuple(shape) != tuple(data.shape) or dset.classes != data.classes:
        raise BadInput(
            "--set",
            f"images {tuple(shape)}, {dset.classes} classes",
            f"{data.name} has images {tuple(data.shape)}, {data.classes} classes: give the data "
            "that the set was made from, --config.data.path=...; of a set that does not say its "
            "dataset, --config.data.name=... too",
        )
    if data.transform.kind == "kip" and dset.transform.kind != "kip":
        # Each image was normalised individually: the map to the set's space is unknown.
        raise BadInput("config.data.zca", "kip, and the set is not", "none, or leave it out")
    notes = class_names.validate_same(dset.class_names, data.class_names, "--set", data.name)
    if isinstance(dset, GeneratorSet):
        return notes
    present = set(dset.classes_of_images.tolist())
    missing = [name for c, name in enumerate(dset.class_names) if c not in present]
    if missing and dset.label_kind == "hard":
        shown = ", ".join(missing[:8]) + (", ..." if len(missing) > 8 else "")
        raise BadInput(
            "--set", f"no images of {shown}", f"one of each class of {data.name}, or more"
        )
    return notes


def validate(context: RunContext, dset: AnyProduct, where: str = "the set's recipe") -> None:
    """Refuse, before anything is written, anything the evaluation of a set would refuse later.

    Raises:
      BadInput: the recipe is invalid (naming ``where``), the set does not match the run's data, its
        initial variables or teachers are missing, or no random draw has its size.
    """
    train_eval.plan(dset, where)
    validate_data(dset, context.data)
    if isinstance(dset, PairSet):
        _validate_random_pairs(context, dset)
        return
    for name in context.config.nets:
        initial_variables(context, dset, context.make_net(name))
    if isinstance(dset, DistilledSet) and label_stores.stored(dset.recipe):
        store = label_stores.labels(context, dset)
        if (distillation := train_eval.distillation(dset)) is not None and distillation.online:
            found = label_stores.teachers(context, dset, store)
            words = dset.recipe["labels"]["teachers"]
            made = [(word, net) for word, (net, _) in zip(words, found, strict=True)]
            label_stores.validate_relations(context, dset.recipe["train"], made)
    _validate_random(context, dset)


def _validate_random_pairs(context: RunContext, dset: PairSet) -> None:
    """Refuse sets with more pairs than there are images to draw."""
    most = len(context.data.train.images)
    if context.config.baselines.random and dset.size > most:
        found = f"random draws of {dset.size} pairs, of {most} images"
        raise BadInput("config.baselines.random", found, "give --config.baselines.random=0")


def baseline_size(dset: DistilledSet | GeneratorSet) -> int:
    """Return the size of a fair baseline: as many images, or a generator's bytes in images."""
    if isinstance(dset, DistilledSet):
        return len(dset.images)
    return dset.classes * max(1, int(dset.recipe["ipc"]))


def size_in_images(generator: GeneratorSet, data: Any) -> tuple[int, bool]:
    """Return the images of each class that take a generator's bytes, and whether there are fewer.

    Weights and images count as float32, fractions of an image are dropped. At least 1, at most the
    smallest class of the training images: then there are fewer bytes of images than of weights.
    """
    images = generator.equal_images // data.classes
    most = int(np.bincount(data.train.labels, minlength=data.classes).min())
    return max(1, min(images, most)), images > most


def _validate_random(context: RunContext, dset: DistilledSet | GeneratorSet) -> None:
    """Refuse sets whose size no draw of random real images can match."""
    config, count = context.config, baseline_size(dset)
    if not config.baselines.random and not config.scores:
        return
    labels, classes = context.data.train.labels, context.data.classes
    most, each = int(np.bincount(labels, minlength=classes).min()), count // classes
    found = ""
    repeats = config.ipc_short != "refuse" and most and each
    if not 1 <= each <= most and not repeats:
        found = f"random draws of {each} images a class, of which there are 1 to {most}"
    elif dset.recipe["train"]["order"] == "sequential" and count != each * classes:
        found = f"random draws for {count} images in their order, not as many of each class"
    if found:
        off = " --config.scores=false" if config.scores else ""
        allowed = f"give --config.baselines.random=0{off}"
        if most and each > most:
            allowed += (
                "; or --config.ipc_short=repeat, and smaller classes give images several times"
            )
        raise BadInput("config.baselines.random", found, allowed)
