"""Trains fresh nets on a small set by its recipe and tests them: the published protocol.

SGD(0.9), weight decay 5e-4, batches of 256, 1001 passes with the rate divided by 10 and the
momentum zeroed after pass index 501, DSA with separate parameters for each image; the last net
counts, not the best. All seeds of a net train concurrently: split over the devices, and on each
device sequentially or under one vmap (``trainer.LIGHT``); on a CPU in parallel.

Source: DC (Zhao et al., ICLR 2021), section 4; also used by DSA, DM and MTT.
"""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel, rng
from jdd.augment import formation, randaugment
from jdd.data.prefetch import Prefetcher
from jdd.evaluation import norms, rules
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.pairs import PairSet
from jdd.run.session import Session
from jdd.soft_labels import objective
from jdd.soft_labels.reader import LabelReader
from jdd.training import orders, trainer
from jdd.training.recipe import Recipe

Tree = Any


# The images of an epoch for k nets: (keys [k], epoch) -> [k, n, h, w, c].
Fresh = Callable[[jax.Array, int], jax.Array]
# The metrics of stacked nets, fractions: (net, variables, session) -> [nets, metrics].
Test = Callable[[Net, Tree, Session], np.ndarray]


class Plan(NamedTuple):
    """Training plan of an evaluation's nets: ``steps`` steps, or ``passes`` over the set.

    ``epochs`` is the number that the protocol names, one below ``passes`` in the published one.
    ``test_every``: see ``tests``.
    """

    recipe: Recipe
    lr: float | tuple[float, ...] | dict[str, float]
    passes: int
    steps: int = 0
    epochs: int = 0
    test_every: int = 0

    @property
    def rates(self) -> Tree:
        """The rates as float32 arrays: one, one for every step, or one for each branch."""
        if isinstance(self.lr, dict):
            return {name: jnp.asarray(rate, jnp.float32) for name, rate in self.lr.items()}
        return jnp.asarray(self.lr, jnp.float32)

    def shown(self, step: int, run: trainer.Fit) -> int:
        """Return the progress after ``step`` steps: epochs as the protocol counts them, or steps.

        Its epochs are one fewer than the passes: the last one counts when the pass after it ends.
        """
        if self.steps:
            return step
        done = step // run.steps_per_epoch
        if self.passes != self.epochs + 1 or self.epochs < 1 or done < self.epochs:
            return done
        return self.epochs if done == self.passes else self.epochs - 1

    def length(self, run: trainer.Fit) -> int:
        """Return the number of steps."""
        return self.steps or self.passes * run.steps_per_epoch

    def tests(self, run: trainer.Fit) -> list[tuple[int, int]]:
        """Return (epoch, steps done) of every test: after epochs 0, k, 2k, ..., and at the end.

        Epochs count from 0, k = ``test_every``; for 0 nets are tested at the end alone.
        """
        total, each = self.length(run), run.steps_per_epoch
        last = -(-total // each) - 1
        found = range(0, last, self.test_every) if self.test_every else ()
        return [*((e, (e + 1) * each) for e in found), (last, total)]


def plan(dset: AnyProduct, where: str = "the set's recipe") -> Plan:
    """Return the training plan for a product, by its recipe.

    Pairs are trained at their learned rates, one for each branch, unless the recipe states one.

    Raises:
      BadInput: as in ``rules.validate_recipe``, naming ``where``.
    """
    rules.validate_recipe(dset, where)
    lr, augment = rules.rate(dset), dset.recipe["augment"]
    assert lr is not None  # checked
    recipe = Recipe.from_json(dset.recipe["train"])
    rates = lr if isinstance(lr, tuple) else ()
    passes, steps = recipe.total_passes, recipe.steps or 0
    if recipe.schedule and isinstance(lr, float):
        steps = recipe.total_steps(dset.size)
        rates = recipe.schedule.rates(lr, steps, recipe.steps_per_epoch(dset.size))
    static = recipe.static.replace(
        augment="dsa" if augment["name"] in ("", "none") else augment["name"],
        strategy=augment["strategy"] if augment["name"] != "none" else "",
        align_corners=bool(augment["align_corners"]),
    )
    if isinstance(dset, PairSet):
        learned = dict(dset.applied_rates)
        if learned and recipe.rates == "image":
            learned = dict.fromkeys(learned, learned["image"])
        return Plan(
            static, learned or rates or lr, passes, steps or len(rates), recipe.epochs,
            recipe.test_every,
        )  # fmt: skip
    own = static.replace(
        label_kind=dset.label_kind, classes=dset.classes, distillation=distillation(dset)
    )
    return Plan(own, rates or lr, passes, steps or len(rates), recipe.epochs)


def formed(dset: DistilledSet) -> DistilledSet:
    """Return the set of the images that are trained on: of a set with a factor, the decoded ones.

    Labels and weights are repeated; the recipe's factor is 1. Another set is returned unchanged.
    """
    train = dset.recipe["train"]
    if (factor := int(train.get("factor", 1))) == 1:
        return dset
    images = np.asarray(formation.decode(jnp.asarray(dset.images), factor))
    labels = np.repeat(dset.labels, factor**2, axis=0)
    weights = None if dset.weights is None else np.repeat(dset.weights, factor**2)
    whole = dset._replace(images=images, labels=labels, weights=weights)
    return whole.with_recipe(dset.recipe | {"train": train | {"factor": 1}})


def distillation(dset: AnyProduct) -> objective.DistillationLoss | None:
    """Return the loss on the set's stored labels; None if the labels are in the set itself.

    In mode online the teachers are added later, by ``stages/label_stores.py``.
    """
    train = dset.recipe["train"]
    if train["order"] != "stored" or isinstance(dset, PairSet):
        return None
    labels = dset.recipe["labels"]
    return objective.DistillationLoss(
        form=labels["form"],
        classes=dset.classes,
        recipe=Recipe.from_json(train).static,
        mode=str(labels.get("mode", "views")),  # absent in sets older than the modes
        pixels=randaugment.of(dset.transform),
    )


@lru_cache(maxsize=32)
def compiled(
    run: trainer.Fit, devices: tuple[jax.Device, ...], shared: bool = False
) -> tuple[Any, Any]:
    """Return compiled ``init`` and ``advance`` over nets, one pair per kind of training.

    With ``shared``, ``advance`` takes an additional argument: entries of the labels' dict that are
    the same for all nets.
    """

    def advance(carry: Tree, own: Tree, ops: Tree, x: Tree, y: Tree, *rest: Tree) -> Tree:
        if shared:
            y, rest = {**y, **rest[-1]}, rest[:-1]
        return run.advance(carry, orders.Keys(own, ops), x, y, *rest)

    axes = (0, 0, None, 0, 0, None, None, None, *(None,) * shared)
    return (
        parallel.spread(run.init, (0,), devices),
        parallel.spread(advance, axes, devices, run.light),
    )


def test_nets(
    net: Net,
    planned: Plan,
    images: Tree,
    labels: Tree,
    test: Test,
    seed: int,
    purpose: str,
    session: Session,
    devices: Sequence[jax.Device],
    at_once: int = 0,
    start: Tree = None,
    reader: LabelReader | None = None,
    fresh: Fresh | None = None,
    label: str = "",
    real: np.ndarray | None = None,
) -> np.ndarray:
    """Train one net on each of ``k`` sets and return the metrics of ``test``, ``[k, metrics]``.

    With ``planned.test_every`` the metrics of every test, ``[k, tests, metrics]``: ``Plan.tests``.
    With several ways of testing batch norm the metrics are followed by the primary one by each:
    ``norms.columns``.

    Args:
      images: ``[k, n, h, w, c]``, or for a net with several inputs a dict of them, each ``[k, n,
        ...]``; equal sets are passed as a broadcast view. Not read with ``fresh``.
      labels: ``[k, n]`` or ``[k, n, classes]``; for pairs a dict of their similarities.
      test: ``(net, variables, session) -> [nets, metrics]``, such as ``tasks.base.tester``.
      seed, purpose: net i is initialised and shuffled by the keys of (seed, purpose, i).
      at_once: nets at a time, 0 for all.
      start: stacked initial variables of the nets, in turn; None for fresh ones.
      reader: the stored labels of the ``k`` sets, in place of ``labels``.
      fresh: ``(keys [k], epoch) -> images``, a set for every epoch of each net, in place of images.
      label: what the progress bar is called; '' for ``purpose``.
      real: real images ``[n, h, w, c]`` on which batch norm is recalibrated, if the recipe asks so.
    """
    count, n = jax.tree.leaves(labels)[0].shape[:2]
    size = min(at_once or count, count)
    if session.divided and session.processes is not None:  # as many nets for each process
        size = min(size, -(-count // session.processes.count))
    run = trainer.make(net, planned.recipe, n)
    total, lr = planned.length(run), planned.rates
    marks = [step for _, step in planned.tests(run)]
    shared = (reader.shared,) if reader and reader.shared else ()
    init, advance = compiled(run, tuple(devices), bool(shared))
    tested = functools.partial(
        norms.tested, test, net, planned.recipe, real=real, seed=seed, session=session
    )
    found: dict[int, np.ndarray] = {}
    for lo in range(0, count, size):
        if not session.mine(lo // size):
            continue
        members = [min(i, count - 1) for i in range(lo, lo + size)]
        keys = [jnp.stack([rng.key(seed, f"{purpose}/{w}", i) for i in members]) for w in "io"]
        x = None if fresh else jax.tree.map(lambda a, m=members: jnp.asarray(a[m]), images)
        ops, carry = rng.key(seed, f"{purpose}/ops"), init(keys[0])
        if start is not None:
            given = np.asarray(members) % len(jax.tree.leaves(start)[0])
            carry["variables"] = jax.tree.map(lambda a, i=given: jnp.asarray(a[i]), start)
        words = f"{label or purpose}: {net.name} x{min(size, count - lo)}"
        bar = session.bar(planned.shown(total, run), words)
        worst, early = 0.0, list[np.ndarray]()
        pieces: Iterable[tuple[int, int]] = zip([0, *marks[:-1]], marks, strict=True)
        pieces = reader.pieces() if reader else pieces
        if fresh:
            pieces = epochs(total, run.steps_per_epoch)
        read = functools.partial(_labels_on_device, reader, labels, members)
        begun, coming = time.perf_counter(), Prefetcher(read, pieces)
        for (first, last), y in coming:
            if fresh:
                x = fresh(keys[1], first // run.steps_per_epoch)
            for a, b in session.paced(first, last):
                carry, loss = advance(carry, keys[1], ops, x, y, lr, a, b, *shared)
                worst = float(jnp.max(loss))
                bar.update(planned.shown(b, run), f"loss {worst:.3f}")
            if last in marks[:-1]:
                early.append(tested(trainer.evaluated(carry), x))
        if reader:
            session.wait(purpose, coming.waited, time.perf_counter() - begun)
        bar.close()
        if not np.isfinite(worst):
            # As published: a diverged net counts as one of the n, since it reflects on the set.
            session.say(f"{purpose}: a {net.name} diverged; it counts as it is")
        final = tested(trainer.evaluated(carry), x)
        found[lo] = np.stack([*early, final], axis=1) if planned.test_every else final
    found = together(found, session) if session.divided else found
    return np.concatenate([found[lo] for lo in sorted(found)])[:count]


def together(found: dict[int, np.ndarray], session: Session) -> dict[int, np.ndarray]:
    """Return the metrics of the nets of all processes, by the number of their first net."""
    file = io.BytesIO()
    np.savez(file, **{str(lo): metrics for lo, metrics in found.items()})  # type: ignore[arg-type]
    every: dict[int, np.ndarray] = {}
    for value in session.gather(file.getvalue()):
        with np.load(io.BytesIO(value), allow_pickle=False) as arrays:
            every |= {int(name): arrays[name] for name in arrays.files}
    return every


def trained(net: Net, planned: Plan, images: Tree, labels: Tree, seed: int) -> Tree:
    """Train one net on one set; return its variables for use.

    With the seed of the set's recipe it is the first net of the set's evaluation.

    Args:
      images, labels: as for ``test_nets``, without the axis of sets.
    """
    run = trainer.make(net, planned.recipe, len(jax.tree.leaves(labels)[0]))
    init, own = (rng.key(seed, f"evaluate/{w}", 0) for w in "io")
    keys = orders.Keys(own, rng.key(seed, "evaluate/ops"))
    given = (keys, images, labels, planned.rates, 0, planned.length(run))
    carry, _ = jax.jit(run.advance)(jax.jit(run.init)(init), *given)
    return trainer.evaluated(carry)


def _labels_on_device(
    reader: LabelReader | None, labels: Tree, members: Sequence[int], piece: tuple[int, int]
) -> Tree:
    """Return on the device the labels of some nets from a piece's first step on."""
    piece_labels = (
        reader.at(members, piece[0]) if reader else jax.tree.map(lambda a: a[members], labels)
    )
    return jax.block_until_ready(jax.tree.map(jnp.asarray, piece_labels))


def epochs(total: int, per_epoch: int) -> list[tuple[int, int]]:
    """Return the steps ``lo .. hi`` of every epoch within ``total`` steps; the last is cut off."""
    return [(lo, min(lo + per_epoch, total)) for lo in range(0, total, per_epoch)]


def repeated(array: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` copies on a new axis 0, as a view."""
    return np.broadcast_to(array, (count, *array.shape))
