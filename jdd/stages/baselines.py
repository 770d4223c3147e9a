"""Random real images as a baseline: nets trained on them by the recipe of a set."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from jdd import rng, tasks
from jdd.data import Split, draw_per_class
from jdd.evaluation import norms, train_eval
from jdd.evaluation.space import in_space_of
from jdd.matching import losses
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.stages import label_stores, pairs
from jdd.stages.initial_variables import initial_variables
from jdd.stages.validation import baseline_size
from jdd.tasks.base import summaries, tester

Soft = Callable[[np.ndarray], np.ndarray]


def random_sets(
    context: RunContext,
    dset: DistilledSet | GeneratorSet,
    draws: int,
    soft: Soft | None = None,
    per_class: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``draws`` sets of random real images of the set's size: ``[draws, n, ...]``.

    With ``per_class`` they have that many images of each class instead. Unless ``config.ipc_short``
    is "refuse", a class of fewer images gives them several times.

    They are ordered class by class, or as the set is where its order matters. Their labels are
    their classes (for an attack, the attacker's target classes), or the soft labels
    ``[k, classes]`` that ``soft`` returns for training rows ``[k]``.
    """
    classes, train = context.data.classes, context.data.train
    per_class = per_class or baseline_size(dset) // classes
    seed, short = context.config.seed, context.config.ipc_short
    index = np.stack(
        [
            draw_per_class(rng.host(seed, "random", i), train.labels, classes, per_class, short)
            for i in range(draws)
        ]
    )
    if isinstance(dset, DistilledSet) and dset.recipe["train"]["order"] == "sequential":
        place = np.argsort(np.argsort(dset.classes_of_images, kind="stable"), kind="stable")
        index = index[:, place]
    split = Split(train.images[index.ravel()], train.labels[index.ravel()])
    flat = in_space_of(dset, split, context.data).images
    task = tasks.of(dset.recipe)
    labels = task.wanted(split.labels) if soft is None else soft(index.ravel())
    images = flat.reshape(*index.shape, *flat.shape[1:])
    return images, labels.reshape(*index.shape, *labels.shape[1:])


def measure_random(
    context: RunContext,
    dset: AnyProduct,
    draws: int,
    session: Session,
    soft: Soft | None = None,
    net: Net | None = None,
    label: str = "",
    per_class: int = 0,
) -> dict[str, Any]:
    """Train one net on each of ``draws`` draws of real images by the same recipe.

    Args:
      soft: computes their labels, of the set's label kind; None for hard labels.
      net: the net; None for the run's own.
      label: what the progress bar is called; '' for 'random'.
      per_class: images of each class in a draw; 0 for the set's size.
    """
    net = net or context.net
    if isinstance(dset, PairSet):
        return pairs.measure_random(context, dset, draws, session, net)
    images, labels = random_sets(context, dset, draws, soft, per_class)
    # Real images are shown whole: as many as are stored, not as many as these stand for.
    planned = train_eval.plan(dset.with_recipe(_whole(dset.recipe)))
    kind = "hard" if soft is None else dset.label_kind
    if soft is None and dset.label_kind == "centred":  # as the set's labels were initialised
        labels, kind = np.asarray(losses.centred(labels, dset.classes)), dset.label_kind
    task = tasks.of(dset.recipe)
    problems = task.problems(in_space_of(dset, context.data.test, context.data))
    reader = None
    if planned.recipe.distillation is not None and isinstance(dset, DistilledSet):
        stores = label_stores.random(context, dset, images)
        planned, reader = label_stores.label_reader(context, dset, planned, stores, labels)
    found = train_eval.test_nets(
        net,
        planned._replace(recipe=planned.recipe.replace(label_kind=kind)),
        images,
        labels,
        tester(task, problems),
        int(dset.recipe["seed"]),
        "random",
        session,
        context.devices,
        context.config.eval.at_once,
        initial_variables(context, dset, net),
        reader,
        label=label,
        real=real_images(context, dset, net, planned),
    )
    names = [*task.metrics, *norms.columns(net, planned.recipe)]
    return {**summaries(names, found), "net": net.name}


def real_images(
    context: RunContext, dset: AnyProduct, net: Net, planned: train_eval.Plan
) -> np.ndarray | None:
    """Return the training images on which batch norm is recalibrated, in the space of the set.

    None unless the recipe asks for them and the net has batch norm.
    """
    if "real" not in norms.ways(net, planned.recipe):
        return None
    train = context.data.train
    size = 4 * math.prod(context.data.shape)
    rows = norms.real_rows(int(dset.recipe["seed"]), len(train.labels), size)
    images: np.ndarray = in_space_of(
        dset, Split(train.images[rows], train.labels[rows]), context.data
    ).images
    return images


def _whole(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe whose images stand for themselves alone."""
    if recipe["train"].get("factor", 1) == 1:
        return recipe
    return recipe | {"train": recipe["train"] | {"factor": 1}}
