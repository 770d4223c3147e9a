"""Stage ``evaluate``: test accuracy of the distilled set, next to random real images.

Every (set, net) is measured once and stored in ``checkpoints/evaluate.json``; nets added later are
measured alone. For a set whose views are labelled by teachers this is the post-training stage. Two
ablations are then also measured: the labels without the set, and the set without the labels.
"""

from __future__ import annotations

import math
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd import tasks
from jdd.evaluation import norms, train_eval
from jdd.evaluation.space import in_space_of
from jdd.matching import losses
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.schema.values import section
from jdd.stages import label_stores, pairs
from jdd.stages.base import Estimate, Stage
from jdd.stages.baselines import measure_random, real_images
from jdd.stages.costs import Seen, cost, example
from jdd.stages.initial_variables import distinct_nets, initial_variables
from jdd.stages.registry import curve
from jdd.stages.validation import baseline_size, size_in_images, validate_data
from jdd.tasks.base import curve_point, merged, primary, summaries, summary, tester
from jdd.training.recipe import RELATIONS, with_eval_keys

# The set itself, and its baselines: random images by the same recipe and, for a set with stored
# labels, the set and random images with hard labels in the same views. For a generator whose bytes
# are not those of its images of an epoch, random images of its bytes too.
SET, RANDOM, HARD, RANDOM_HARD = "", "random", "hard", "random_hard"
RANDOM_BYTES = "random_bytes"


class Job(NamedTuple):
    """One measurement: the seed of the set, the net that is trained, and what it is trained on."""

    seed: int
    net: str
    kind: str = SET


def settings(context: RunContext) -> dict[str, Any]:
    """Return the settings an evaluation depends on, in addition to the set itself."""
    config = context.config
    return {
        "n": config.eval.n,
        "epochs": config.eval.epochs,
        "steps": config.eval.steps,
        "batch": config.eval.batch,
        "lr": config.eval.lr,
        "at_once": config.eval.at_once,
        **with_eval_keys({}, section(config.eval)),
        "data": context.data.fingerprint,
        "net": [config.net.name, section(config.net)],
        **({"weights": context.weights_digest} if context.weights_digest else {}),
    }


def measure(
    context: RunContext,
    dset: AnyProduct,
    net: Net,
    n: int,
    test: Any,
    purpose: str,
    session: Session,
    before: bool = False,
    label: str = "",
) -> dict[str, Any]:
    """Train ``n`` nets on the set by its recipe; return mean, std, n and values.

    If the recipe gives initial variables, at most one net per initial state is trained. With
    ``before`` the result contains the same figures before the steps, as "before".
    """
    if isinstance(dset, DistilledSet):
        dset = train_eval.formed(dset)
    start = initial_variables(context, dset, net)
    n = distinct_nets(start, n)
    task = tasks.of(dset.recipe)
    problems = task.problems(in_space_of(dset, test, context.data))
    planned, reader, fresh = train_eval.plan(dset), None, None
    images: Any = None
    labels: Any
    if isinstance(dset, PairSet):
        images, labels = jax.tree.map(lambda a: train_eval.repeated(a, n), pairs.material(dset))
    elif isinstance(dset, GeneratorSet):
        fresh, labels = drawn(dset), train_eval.repeated(dset.labels, n)
    else:
        planned, labels = _weighted(dset, planned, train_eval.repeated(dset.labels, n))
        images = train_eval.repeated(dset.images, n)
    if planned.recipe.distillation is not None and isinstance(dset, DistilledSet):
        stores = [label_stores.labels(context, dset)] * n
        planned, reader = label_stores.label_reader(
            context, dset, planned, stores, labels, dset.weights
        )
    found = train_eval.test_nets(
        net,
        planned,
        images,
        labels,
        tester(task, problems),
        int(dset.recipe["seed"]),
        purpose,
        session,
        context.devices,
        context.config.eval.at_once,
        start,
        reader,
        fresh,
        label,
        real_images(context, dset, net, planned),
    )
    if isinstance(dset, PairSet):
        result = pairs.summarised(found, planned, net, dset.size)
    else:
        result = summaries([*task.metrics, *norms.columns(net, planned.recipe)], found)
    if before and start is not None:
        first = jax.tree.map(lambda a: a[:n], start)
        result["before"] = summaries(task.metrics, task.measure(net, first, problems, session))
    return result


def drawn(generator: GeneratorSet) -> train_eval.Fresh:
    """Return the images of an epoch for several nets, drawn from each net's own key."""

    def images(keys: jax.Array, epoch: int) -> jax.Array:
        own = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, 2), epoch))(keys)
        return jax.numpy.stack([generator.images(key) for key in own])

    return images


def _weighted(
    dset: DistilledSet, planned: train_eval.Plan, labels: np.ndarray
) -> tuple[train_eval.Plan, np.ndarray]:
    """Return labels with rows scaled by the images' weights: cross entropy is linear in them.

    With stored labels the loss itself has the weights (``soft_labels/objective.py``).
    """
    if dset.weights is None or planned.recipe.distillation is not None:
        return planned, labels
    recipe = planned.recipe
    given = jax.numpy.asarray(dset.labels)
    rows = np.asarray(losses.targets(given, dset.label_kind, dset.classes))
    scaled = train_eval.repeated(rows * dset.weights[:, None], len(labels))
    return planned._replace(recipe=recipe.replace(label_kind="probabilities")), scaled


def with_hard_loss(dset: AnyProduct) -> AnyProduct:
    """Return a set of stored labels with the hard-label loss, in the same views: no teachers."""
    train = {k: v for k, v in dset.recipe["train"].items() if k not in (*RELATIONS, "irg_half")}
    return dset.with_recipe(dset.recipe | {"train": train | {"loss": "hard"}})


def _jobs(context: RunContext) -> dict[str, Job]:
    """Return this run's measurements by the keys under which their results are stored."""
    jobs: dict[str, Job] = {}
    for seed in context.seeds:
        identity = settings(context) | {
            "set": context.load_set(seed).recipe["fingerprint"],
            "seed": seed,
        }
        for name in context.config.nets:
            jobs[fingerprint([identity, name])] = Job(seed, name)
        if seed == context.seeds[0]:
            for name in context.baseline_nets:
                jobs |= _baseline_jobs(context, identity, Job(seed, name), context.load_set(seed))
    return jobs


def _baseline_jobs(
    context: RunContext, identity: dict[str, Any], job: Job, dset: AnyProduct
) -> dict[str, Job]:
    """Return the measurements of a net's baselines by their keys."""
    draws = context.config.baselines.random
    hard = bool(getattr(context.config.baselines, "hard", False))
    # The run's own net is in ``identity``.
    other = [] if job.net == context.config.net.name else [job.net]
    jobs = {}
    if draws:
        jobs[fingerprint([identity, "random", draws, *other])] = job._replace(kind=RANDOM)
    if draws and _bytes_differ(context, dset):
        key = fingerprint([identity, RANDOM_BYTES, draws, *other])
        jobs[key] = job._replace(kind=RANDOM_BYTES)
    if hard:
        jobs[fingerprint([identity, "hard", *other])] = job._replace(kind=HARD)
    if hard and draws:
        jobs[fingerprint([identity, "random_hard", draws, *other])] = job._replace(kind=RANDOM_HARD)
    return jobs


def _bytes_differ(context: RunContext, dset: AnyProduct | None) -> bool:
    """Return whether as many bytes as a generator's are not as many images as ``ipc``."""
    return isinstance(dset, GeneratorSet) and (
        size_in_images(dset, context.data)[0] * dset.classes != baseline_size(dset)
    )


def _run(context: RunContext, session: Session) -> None:
    session.metrics.start("evaluate")
    jobs, known = _jobs(context), context.recall("evaluate")
    for key, job in jobs.items():
        new = key not in known
        if new:
            begun = time.perf_counter()
            known = known | {key: _measured(context, job, session)}
            context.remember("evaluate-seconds", key, time.perf_counter() - begun)
        order, own = list(known).index(key) + 1, context.config.net.name
        what: dict[str, Any] = {"net": job.net, "seed": job.seed}
        if job.kind != SET:
            what = {"baseline": job.kind} | ({} if job.net == own else {"net": job.net})
        task = tasks.of(context.load_set(job.seed).recipe)
        metric, n = primary(task), known[key]["n"]
        what |= session.stall("evaluate", "random")
        session.metrics.log("evaluate", order, **{metric: known[key]["mean"]}, n=n, **what)
        # The accuracy curve ends with the reported value if both are on the same split.
        if job.kind == SET and job.net == own and context.data.val is None:
            stage, last = curve(context.stage(job.seed)), context.config.steps
            session.metrics.log(stage, last, **curve_point(task, known[key]), net=own)
        if new:  # last: with it the measurement is complete
            context.remember("evaluate", key, known[key])


def _measured(context: RunContext, job: Job, session: Session) -> dict[str, Any]:
    """Make one measurement; return its metrics, of a baseline with its net."""
    dset, net = context.load_set(job.seed), context.make_net(job.net)
    validate_data(dset, context.data)
    if job.kind in (HARD, RANDOM_HARD):
        dset = with_hard_loss(dset)
    label = {HARD: "evaluate, hard labels", RANDOM_HARD: "random, hard labels"}.get(job.kind, "")
    if job.kind in (RANDOM, RANDOM_HARD):
        draws = context.config.baselines.random
        return measure_random(context, dset, draws, session, net=net, label=label)
    if job.kind == RANDOM_BYTES:
        assert isinstance(dset, GeneratorSet)
        each, fewer = size_in_images(dset, context.data)
        draws, label = context.config.baselines.random, "random, equal bytes"
        found = measure_random(context, dset, draws, session, net=net, label=label, per_class=each)
        return found | {"per_class": each, "fewer_bytes": fewer}
    n, test = context.config.eval.n, context.data.test
    found = measure(context, dset, net, n, test, "evaluate", session, before=True, label=label)
    return found | ({"net": net.name} if job.kind == HARD else {})


def measured(context: RunContext, job: Job) -> dict[str, Any] | None:
    """Return the result of a measurement; None if it has not been made."""
    keys = [key for key, other in _jobs(context).items() if other == job]
    return context.recall("evaluate").get(keys[0]) if keys else None


def results(context: RunContext) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return accuracy by net, and the baselines by net and name, as stored in result.json."""
    known = context.recall("evaluate")
    accuracy: dict[str, Any] = {}
    baselines: dict[str, dict[str, Any]] = {n: {"random": None} for n in context.baseline_nets}
    for key, (seed, net, kind) in _jobs(context).items():
        if key not in known:
            continue
        if kind != SET:
            baselines[net][kind] = known[key]
            continue
        accuracy.setdefault(net, {})[str(seed)] = known[key]
    return {name: _over_seeds(found) for name, found in accuracy.items()}, baselines


def costs(context: RunContext) -> dict[str, dict[str, Any]]:
    """Return each net's number of parameters, and the seconds of its training and test."""
    spent = context.recall("evaluate-seconds")
    found: dict[str, dict[str, Any]] = {}
    for key, (_, name, kind) in _jobs(context).items():
        if kind == SET:
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
    spread = summary(means)["std"]
    both = merged(list(found.values()))
    return {**both, "seeds": found, "std_over_seeds": spread}


def _estimate(context: RunContext) -> Estimate:
    nets = [context.make_net(name) for name in context.config.nets]
    seen: Seen = {}  # of several measurements of a net one is timed
    found = [cost(context, net, context.config.eval.n, seen=seen) for net in nets]
    seconds = sum(e.seconds for e in found) * len(context.seeds)
    draws, n = context.config.baselines.random, context.config.eval.n
    hard = bool(getattr(context.config.baselines, "hard", False))
    made = example(context) if draws else None
    for net in map(context.make_net, context.baseline_nets):
        if draws:
            seconds += cost(context, net, draws, memory=False, seen=seen).seconds * (1 + hard)
        if hard:
            seconds += cost(context, net, n, memory=False, seen=seen).seconds
        if draws and _bytes_differ(context, made):
            assert isinstance(made, GeneratorSet)
            ratio = size_in_images(made, context.data)[0] * made.classes / made.size
            seconds += cost(context, net, draws, memory=False, seen=seen).seconds * ratio
    note = "; ".join(e.note for e in found) + (f"; {draws} random draws" if draws else "")
    note += "; both with hard labels too" if hard else ""
    # The curve of the distill stage trains the same nets: timed here, so that they compile once.
    unmade = sum(not context.set_path(seed).exists() for seed in context.seeds)
    if points := unmade * context.config.eval.curve * bool(context.config.steps):
        each = cost(context, context.net, context.config.eval.curve_n, memory=False, seen=seen)
        seconds += points * each.seconds
        note += f"; {points} points of the accuracy curve, measured while distilling"
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
