"""Stage ``evaluate``: what the distilled set is worth, beside random real images.

Every (set, net) is measured once and kept in ``checkpoints/evaluate.json``; asking for more nets
later measures only those. Of a set whose views are labelled by teachers this is its post-training,
and what the labels do without the set, and the set without the labels, is measured beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jdd import rng
from jdd.data import Dataset, Split, Streamed, class_names, draw_per_class
from jdd.errors import BadInput
from jdd.evaluation import objectives, train_eval
from jdd.evaluation.accuracy import accuracy
from jdd.evaluation.initial_variables import kinds, starts
from jdd.matching import losses
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.schema.values import section
from jdd.stages import label_stores
from jdd.stages.base import Estimate, Stage
from jdd.stages.costs import cost
from jdd.stages.registry import curve
from jdd.training.recipe import asked

# What is measured beside the nets: random images by the same recipe and, of a set whose labels are
# stored, the set and random images with hard labels in the same views.
RANDOM, HARD, RANDOM_HARD = "", "hard", "random_hard"
BESIDE = (RANDOM, HARD, RANDOM_HARD)


def settings(context: RunContext) -> dict[str, Any]:
    """Return what an evaluation depends on beside the set itself."""
    config = context.config
    return {
        "n": config.eval.n,
        "epochs": config.eval.epochs,
        "steps": config.eval.steps,
        "batch": config.eval.batch,
        "lr": config.eval.lr,
        "at_once": config.eval.at_once,
        **asked({}, section(config.eval)),
        "data": context.data.fingerprint,
        "net": [config.net.name, section(config.net)],
    }


def fits(dset: DistilledSet, data: Dataset) -> tuple[str, ...]:
    """Return notes on the classes of a set; refuse one that is not of this dataset's.

    Raises:
      BadInput: images of another shape, or classes that are not the dataset's, in its order.
    """
    if tuple(dset.images.shape[1:]) != tuple(data.shape) or dset.classes != data.classes:
        raise BadInput(
            "--set",
            f"images {dset.images.shape[1:]}, {dset.classes} classes",
            f"{data.name} has images {tuple(data.shape)}, {data.classes} classes: give the data "
            "that the set was made from, --config.data.path=...; of a set that does not say its "
            "dataset, --config.data.name=... too",
        )
    if data.transform.kind == "kip" and dset.transform.kind != "kip":
        # Each image has lost its own mean and length: there is no way to the set's space.
        raise BadInput("config.data.zca", "kip, and the set is not", "none, or leave it out")
    notes = class_names.check_same(dset.class_names, data.class_names, "--set", data.name)
    there = set(dset.classes_of_images.tolist())
    lacking = [name for c, name in enumerate(dset.class_names) if c not in there]
    if lacking and dset.label_kind == "hard":
        shown = ", ".join(lacking[:8]) + (", ..." if len(lacking) > 8 else "")
        raise BadInput(
            "--set", f"no images of {shown}", f"one of each class of {data.name}, or more"
        )
    return notes


def check(context: RunContext, dset: DistilledSet, where: str = "the set's recipe") -> None:
    """Refuse before anything is written what the evaluation of a set would refuse later.

    Raises:
      BadInput: the recipe says what nets cannot be trained by (naming ``where``), the set is not of
        the run's data, what its nets start from or who labels it is not there, or there are no such
        random images.
    """
    train_eval.plan(dset, where)
    fits(dset, context.data)
    for name in context.config.nets:
        starts(context, dset, context.make_net(name))
    if label_stores.stored(dset.recipe):
        store = label_stores.labels(context, dset)
        if (distillation := train_eval.distillation(dset)) is not None and distillation.online:
            label_stores.teachers(context, dset, store)
    _check_random(context, dset)


def _check_random(context: RunContext, dset: DistilledSet) -> None:
    """Refuse sets that no draw of random real images is as large as."""
    config, count = context.config, len(dset.images)
    if not config.baselines.random and not config.scores:
        return
    labels, classes = context.data.train.labels, context.data.classes
    most, each = int(np.bincount(labels, minlength=classes).min()), count // classes
    found = ""
    if not 1 <= each <= most:
        found = f"random draws of {each} images a class, of which there are 1 to {most}"
    elif dset.recipe["train"]["order"] == "sequential" and count != each * classes:
        found = f"random draws for {count} images in their order, not as many of each class"
    if found:
        off = " --config.scores=false" if config.scores else ""
        allowed = f"give --config.baselines.random=0{off}"
        raise BadInput("config.baselines.random", found, allowed)


def in_space_of(dset: DistilledSet, split: Split, data: Dataset) -> Split:
    """Return ``split`` in the input space of the set: its own normalisation and whitening."""
    ours, theirs = data.transform, dset.transform
    # zca_inverse is left out: it follows from the matrix, and a loaded set does not hold it.
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


def measure(
    context: RunContext,
    dset: DistilledSet,
    net: Net,
    n: int,
    test: Split,
    purpose: str,
    session: Session,
    before: bool = False,
) -> dict[str, Any]:
    """Train ``n`` nets on the set by its recipe; return mean, std, n and values.

    Nets that the recipe does not start afresh are as many as there are starts, at most; with
    ``before`` the same figures of the nets before the steps are there too, as "before".
    """
    start = starts(context, dset, net)
    n = kinds(start, n)
    asked = objectives.splits(dset.recipe, in_space_of(dset, test, context.data))
    planned, labels = train_eval.plan(dset), train_eval.repeated(dset.labels, n)
    lectures = None
    if planned.recipe.distillation is not None:
        stores = [label_stores.labels(context, dset)] * n
        planned, lectures = label_stores.lectures(context, dset, planned, stores, labels)
    found = train_eval.test_nets(
        net,
        planned,
        train_eval.repeated(dset.images, n),
        labels,
        asked,
        int(dset.recipe["seed"]),
        purpose,
        session,
        context.devices,
        context.config.eval.at_once,
        start,
        lectures,
    )
    result = objectives.summaries(asked, found)
    if before and start is not None:
        first = jax.tree.map(lambda a: a[:n], start)
        columns = [accuracy(net, first, split, session) for split in asked.values()]
        result["before"] = objectives.summaries(asked, np.stack(columns, axis=1))
    return result


Soft = Callable[[np.ndarray], np.ndarray]


def random_sets(
    context: RunContext, dset: DistilledSet, draws: int, soft: Soft | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``draws`` sets of random real images of the set's size: ``[draws, n, ...]``.

    They lie class by class, or as the set does where its order counts. Their labels are their
    classes, in an attack those that the attacker wants; or what ``soft`` returns for training rows
    ``[k]``, soft labels ``[k, classes]``.
    """
    classes, train = context.data.classes, context.data.train
    per_class = len(dset.images) // classes
    seed = context.config.seed
    index = np.stack(
        [
            draw_per_class(rng.host(seed, "random", i), train.labels, classes, per_class)
            for i in range(draws)
        ]
    )
    if dset.recipe["train"]["order"] == "sequential":
        place = np.argsort(np.argsort(dset.classes_of_images, kind="stable"), kind="stable")
        index = index[:, place]
    split = Split(train.images[index.ravel()], train.labels[index.ravel()])
    flat = in_space_of(dset, split, context.data).images
    labels = objectives.wanted(dset.recipe, split.labels) if soft is None else soft(index.ravel())
    images = flat.reshape(*index.shape, *flat.shape[1:])
    return images, labels.reshape(*index.shape, *labels.shape[1:])


def measure_random(
    context: RunContext,
    dset: DistilledSet,
    draws: int,
    session: Session,
    soft: Soft | None = None,
) -> dict[str, Any]:
    """Train one net on each of ``draws`` draws of real images by the same recipe.

    Their labels are hard, or ``soft`` makes them, of the set's own kind.
    """
    images, labels = random_sets(context, dset, draws, soft)
    planned = train_eval.plan(dset)
    kind = "hard" if soft is None else dset.label_kind
    if soft is None and dset.label_kind == "centred":  # as the set's own labels have started
        labels, kind = np.asarray(losses.centred(labels, dset.classes)), dset.label_kind
    asked = objectives.splits(dset.recipe, in_space_of(dset, context.data.test, context.data))
    lectures = None
    if planned.recipe.distillation is not None:
        stores = label_stores.random(context, dset, images)
        planned, lectures = label_stores.lectures(context, dset, planned, stores, labels)
    found = train_eval.test_nets(
        context.net,
        planned._replace(recipe=planned.recipe.replace(label_kind=kind)),
        images,
        labels,
        asked,
        int(dset.recipe["seed"]),
        "random",
        session,
        context.devices,
        context.config.eval.at_once,
        starts(context, dset, context.net),
        lectures,
    )
    return {**objectives.summaries(asked, found), "net": context.net.name}


def hardened(dset: DistilledSet) -> DistilledSet:
    """Return a set of stored labels whose students learn the classes instead, in the same views."""
    return dset._replace(recipe=dset.recipe | {"train": dset.recipe["train"] | {"loss": "hard"}})


def _jobs(context: RunContext) -> dict[str, tuple[int, str]]:
    """Return the measurements this run wants: key -> (seed, net name or one of ``BESIDE``)."""
    jobs: dict[str, tuple[int, str]] = {}
    for seed in context.seeds:
        said = settings(context) | {
            "set": context.load_set(seed).recipe["fingerprint"],
            "seed": seed,
        }
        for name in context.config.nets:
            jobs[fingerprint([said, name])] = (seed, name)
        draws = context.config.baselines.random if seed == context.seeds[0] else 0
        hard = seed == context.seeds[0] and bool(getattr(context.config.baselines, "hard", False))
        if draws:
            jobs[fingerprint([said, "random", draws])] = (seed, RANDOM)
        if hard:
            jobs[fingerprint([said, "hard"])] = (seed, HARD)
        if hard and draws:
            jobs[fingerprint([said, "random_hard", draws])] = (seed, RANDOM_HARD)
    return jobs


def _run(context: RunContext, session: Session) -> None:
    session.metrics.start("evaluate")
    jobs, known = _jobs(context), context.recall("evaluate")
    for key, (seed, name) in jobs.items():
        if key not in known:
            dset = context.load_set(seed)
            fits(dset, context.data)
            begun = time.perf_counter()
            n, draws = context.config.eval.n, context.config.baselines.random
            dset = hardened(dset) if name in (HARD, RANDOM_HARD) else dset
            if name in (RANDOM, RANDOM_HARD):
                found = measure_random(context, dset, draws, session)
            else:
                net = context.net if name == HARD else context.make_net(name)
                test = context.data.test
                found = measure(context, dset, net, n, test, "evaluate", session, before=True)
                found |= {"net": net.name} if name == HARD else {}
            context.remember("evaluate-seconds", key, time.perf_counter() - begun)
            context.remember("evaluate", key, found)
            known = context.recall("evaluate")
        order = list(known).index(key) + 1
        what: dict[str, Any] = {"baseline": name or "random"}
        if name not in BESIDE:
            what = {"net": name, "seed": seed}
        accuracy, n = known[key]["mean"], known[key]["n"]
        what |= session.stall("evaluate", "random")
        session.metrics.log("evaluate", order, accuracy=accuracy, n=n, **what)
        # The accuracy curve ends with what is reported, where both are on the same split.
        if name == context.config.net.name and context.data.val is None:
            stage, last = curve(context.stage(seed)), context.config.steps
            session.metrics.log(stage, last, **objectives.curve_point(known[key]), net=name)


def measured(context: RunContext, seed: int, name: str) -> dict[str, Any] | None:
    """Return what was measured of a seed's set with a net ('' for random); None if it was not."""
    keys = [key for key, job in _jobs(context).items() if job == (seed, name)]
    return context.recall("evaluate").get(keys[0]) if keys else None


def results(context: RunContext) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return accuracy by net, and what stands beside it by name, as result.json holds them."""
    known = context.recall("evaluate")
    accuracy: dict[str, Any] = {}
    beside: dict[str, Any] = {"random": None}
    for key, (seed, name) in _jobs(context).items():
        if key not in known:
            continue
        if name in BESIDE:
            beside[name or "random"] = known[key]
            continue
        accuracy.setdefault(name, {})[str(seed)] = known[key]
    return {name: _over_seeds(found) for name, found in accuracy.items()}, beside


def costs(context: RunContext) -> dict[str, dict[str, Any]]:
    """Return each net's number of parameters, and the seconds its training and test have taken."""
    spent = context.recall("evaluate-seconds")
    found: dict[str, dict[str, Any]] = {}
    for key, (_, name) in _jobs(context).items():
        if name not in BESIDE:
            shapes = jax.eval_shape(context.make_net(name).init, jax.random.key(0))["params"]
            count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))
            one = found.setdefault(name, {"parameters": count, "seconds": None})
            if key in spent:
                one["seconds"] = (one["seconds"] or 0.0) + spent[key]
    return found


def _over_seeds(found: dict[str, Any]) -> dict[str, Any]:
    if len(found) == 1:
        return dict(next(iter(found.values())))
    means = [one["mean"] for one in found.values()]
    spread = train_eval.summary(means)["std"]
    merged = objectives.merged(list(found.values()))
    return {**merged, "seeds": found, "std_over_seeds": spread}


def _estimate(context: RunContext) -> Estimate:
    nets = [context.make_net(name) for name in context.config.nets]
    found = [cost(context, net, context.config.eval.n) for net in nets]
    seconds = sum(e.seconds for e in found) * len(context.seeds)
    draws, n = context.config.baselines.random, context.config.eval.n
    hard = bool(getattr(context.config.baselines, "hard", False))
    if draws:
        seconds += cost(context, context.net, draws).seconds * (1 + hard)
    if hard:
        seconds += cost(context, context.net, n).seconds
    note = "; ".join(e.note for e in found) + (f"; {draws} random draws" if draws else "")
    note += "; both with hard labels too" if hard else ""
    return Estimate(seconds, max((e.temporaries for e in found), default=0), note)


def _done(context: RunContext) -> bool:
    if not all(context.set_path(seed).exists() for seed in context.seeds):
        return False
    known = context.recall("evaluate")
    return all(key in known for key in _jobs(context))


STAGE = Stage(
    name="evaluate",
    fingerprint=lambda context: fingerprint([list(_jobs(context))]),
    run=_run,
    estimate=_estimate,
    done=_done,
)
