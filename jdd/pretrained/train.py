"""Training of expert trajectories in groups, groups in parallel over devices.

Only the epochs that a method reads are trained; a snapshot is written at initialisation and after
each epoch. An interrupted group resumes from its last complete epoch; if its optimiser has a state
(momentum, Adam's moments), that of the last epoch is stored next to the snapshots.

Source: MTT (Cazenavette et al. 2022), section 3.1 and appendix: SGD without momentum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel, rng
from jdd.data import Dataset
from jdd.data.dataset import Split
from jdd.data.pairs import PairDataset
from jdd.errors import Diverged
from jdd.evaluation.accuracy import accuracy
from jdd.nets import Net
from jdd.pretrained.store import Store
from jdd.run.session import Session
from jdd.storage import checkpoints, failures
from jdd.tasks.retrieval import RETRIEVAL
from jdd.training import input_pipeline, orders, trainer
from jdd.training.recipe import Recipe

Tree = Any


def keys(seed: int, groups: Sequence[int], size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the PRNG keys of groups: init and own keys ``[g * G]``, shared ops keys ``[g]``."""
    members = [g * size + i for g in groups for i in range(size)]
    init = jnp.stack([rng.key(seed, "expert/init", i) for i in members])
    own = jnp.stack([rng.key(seed, "expert/own", i) for i in members])
    ops = jnp.stack([rng.key(seed, "expert/ops", g) for g in groups])
    return init, own, ops


@lru_cache(maxsize=16)
def advance(
    train: trainer.Fit, devices: tuple[jax.Device, ...], fed: bool = False, shared: bool = False
) -> Any:
    """Return ``f(carry, own, ops, images, labels, lr, lo, hi)`` over groups, one per device.

    ``fed``: images and labels are each net's own batches, from ``input_pipeline.Feed``.
    ``shared``: there is one net, and each device takes a part of its batches.
    """

    def one(carry: Tree, own: Tree, ops: Tree, *rest: Tree) -> Tree:
        return train.advance(carry, orders.Keys(own, ops), *rest)

    if shared:
        return parallel.over_batch(one, (True, True, True, fed, fed, *3 * (False,)), devices)
    images = 0 if fed else None
    axes = (0, 0, "device", images, images, None, None, None)
    return parallel.spread(one, axes, devices, train.light)


def train(
    store: Store,
    net: Net,
    recipe: Recipe,
    lr: float | Sequence[float],
    data: Dataset | PairDataset,
    groups: int,
    epochs: int,
    seed: int,
    session: Session,
    devices: Sequence[jax.Device],
    stage: str = "experts",
    keep_all: bool = True,
    named: str = "experts",
) -> None:
    """Train the first ``groups`` groups of ``store`` up to ``epochs`` epochs.

    Args:
      data: the dataset; ``data.train`` and ``data.test`` are splits in the net's input space. The
        training images are moved to the devices as a whole, or by batches if they are ``Streamed``.
        Of pairs the net is two towers, and an epoch goes through all captions.
      lr: constant learning rate; with ``recipe.rates`` one per step.
      keep_all: False deletes all snapshots except a group's last.
      named: the group of config keys with the rate and the folder of these nets; '' for none.

    Raises:
      Diverged: the loss of an epoch is not finite; that epoch is not stored.
      Interrupted: a signal arrived; complete epochs are stored.
    """
    failures.present(session.workdir)  # the store may be in it
    store.create()
    rates = jnp.asarray(lr, jnp.float32)
    last = session.metrics.last(stage)
    if last and last.get("diverged"):  # that epoch is trained again
        session.metrics.truncate(stage, last["step"] - 1)
    session.metrics.start(stage)
    if store.has(groups, epochs):
        return
    fed = isinstance(data, Dataset) and input_pipeline.fed(data.train)
    # A single net has its batches split over the devices; many nets are one group per device. A
    # batch of pairs is not split: every image is compared with every text.
    shared = groups * store.group == 1 and len(devices) > 1 and isinstance(data, Dataset)
    over = tuple(devices) if shared else ()
    run = trainer.make(net, recipe, data.train.size, fed, over)
    steps = run.steps_per_epoch
    whole = None
    if not fed:
        images, labels = jax.tree.map(jnp.asarray, (data.train.inputs, data.train.targets))
        whole = input_pipeline.Whole(images, labels, steps, session)
    bar = session.bar(groups * epochs * steps, stage)
    for lowest in range(0, groups, len(devices)):
        # The same groups share a program whenever the run is resumed: equal bits.
        now = list(range(groups))[lowest : lowest + len(devices)]
        if all(store.epochs(g) >= epochs for g in now) or not session.mine(lowest // len(devices)):
            continue
        _, own, ops = keys(seed, now, store.group)
        carry, begin = _begin(store, run, now, seed, session)
        stateful = bool(jax.tree.leaves(carry["optimizer"]))
        used = over or tuple(devices[: len(now)])
        call, left = advance(run, used, fed, shared), range(begin, epochs)
        source = whole or input_pipeline.Feed(
            cast(Split, data.train), recipe, own, left, used, session, stage, shared
        )
        with contextlib.closing(source):
            for epoch in left:
                total = 0.0
                for lo, hi, images, labels in source.epoch(epoch):
                    carry, loss = call(carry, own, ops, images, labels, rates, lo, hi)
                    mean = float(jnp.mean(loss))
                    total += mean * (hi - lo)
                    bar.update(now[0] * epochs * steps + hi * len(now), f"loss {mean:.3f}")
                done = now[0] * epochs + (epoch + 1) * len(now)
                if not np.isfinite(total):
                    words = f"the loss of a net became {total} in epoch {epoch + 1}"
                    session.metrics.log(stage, done, epoch=epoch + 1, diverged=words)
                given = stage.startswith(named) and session.workdir not in store.directory.parents
                _finite(total, stage, epoch, float(jnp.max(rates)), named, given)
                scalars = {"loss": total / steps, "epoch": epoch + 1, "groups": len(now)}
                if epoch + 1 == epochs and now[0] == 0:
                    made = jax.device_get(carry["variables"]) if shared else carry["variables"]
                    scalars |= _tested(net, made, data)
                # Before the nets are stored, which ends the epoch: a kill loses no line.
                session.metrics.log(stage, done, **scalars, **session.stall(stage))
                _keep(store, now, epoch + 1, carry, stateful, keep_all)
    bar.close()
    advance.cache_clear()  # it holds the training images on every device


def _tested(net: Net, variables: Tree, data: Dataset | PairDataset) -> dict[str, float]:
    """Return the mean metrics of trained nets on the test data, by name."""
    if isinstance(data, PairDataset):
        found = RETRIEVAL.measure(net, variables, RETRIEVAL.problems(data.test)).mean(axis=0)
        return dict(zip(RETRIEVAL.metrics, map(float, found), strict=True))
    return {"accuracy": float(accuracy(net, variables, data.test).mean())}


def _begin(
    store: Store, run: trainer.Fit, now: Sequence[int], seed: int, session: Session
) -> tuple[Tree, int]:
    """Return the carry that groups resume from, and the number of their completed epochs.

    Groups whose last item is damaged begin again, to equal bits.
    """
    carry = jax.jit(jax.vmap(run.init))(keys(seed, now, store.group)[0])
    begin = min(store.epochs(g) for g in now)
    stateful = bool(jax.tree.leaves(carry["optimizer"]))
    if begin >= 0 and (not stateful or all(store.has_state(g, begin) for g in now)):
        try:
            return _stored(store, carry, now, begin, stateful), begin
        except checkpoints.Damaged as error:
            session.warn(f"{error.where}: {error.found}; its nets are trained again")
    _write(store, now, 0, carry)
    return carry, 0


def _stored(store: Store, carry: Tree, now: Sequence[int], begin: int, stateful: bool) -> Tree:
    """Return the carry of groups after ``begin`` epochs."""
    found = {**carry, "variables": _stack([store.read_group(g, begin) for g in now])}
    if stateful and begin:
        like = jax.tree.map(lambda x: x[: store.group], carry["optimizer"])
        found["optimizer"] = _stack([store.read_state(g, begin, like) for g in now])
    return found


def _keep(
    store: Store, now: Sequence[int], epoch: int, carry: Tree, stateful: bool, keep_all: bool
) -> None:
    """Store groups after ``epoch`` epochs, and delete states that are no longer needed."""
    if stateful:  # first: a snapshot implies that its state exists
        _write(store, now, epoch, carry, "optimizer")
    _write(store, now, epoch, carry)
    for g in now:
        store.forget(g, epoch, snapshots=not keep_all)


def _finite(
    loss: float, stage: str, epoch: int, rate: float, keys: str, given: bool = False
) -> None:
    """Refuse a loss that is not finite; ``given``: the nets lie outside the working directory."""
    if not np.isfinite(loss):
        remedy = f"try a learning rate of {rate / 10:.3g}, with a new --workdir"
        if keys:
            remedy = f"try --config.{keys}.lr={rate / 10:.3g}, with a new --workdir"
            remedy += f" and another --config.{keys}.dir" if given else ""
        what = f"the loss of a net became {loss} in epoch {epoch + 1}"
        raise Diverged(f"{stage} diverged: {what}; {remedy}")


def _write(
    store: Store, groups: Sequence[int], epoch: int, carry: Tree, what: str = "variables"
) -> None:
    tree = jax.device_get(carry[what])
    write = store.write if what == "variables" else store.write_state
    for i, g in enumerate(groups):
        part = slice(i * store.group, (i + 1) * store.group)
        write(g, epoch, jax.tree.map(lambda x, part=part: np.asarray(x[part]), tree))


def _stack(trees: Sequence[Tree]) -> Tree:
    return jax.tree.map(lambda *xs: jnp.concatenate([jnp.asarray(x) for x in xs]), *trees)
