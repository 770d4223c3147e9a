"""Trains expert trajectories, a group at once, groups in parallel over devices.

Only the epochs a method will read are trained; a snapshot is taken at initialisation and after
each epoch. An interrupted group goes on from its last whole epoch; where its optimiser has a state
of its own (momentum), that of the last epoch lies beside the snapshots.

Source: MTT (Cazenavette et al. 2022), section 3.1 and appendix: SGD without momentum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel, rng
from jdd.errors import Diverged
from jdd.evaluation.accuracy import accuracy
from jdd.experts.store import Store
from jdd.inner import fit
from jdd.nets import Net
from jdd.session import Session

Tree = Any


def keys(seed: int, groups: Sequence[int], size: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the keys of the groups' experts: init and own ``[g * G]``, shared ops ``[g]``."""
    members = [g * size + i for g in groups for i in range(size)]
    init = jnp.stack([rng.key(seed, "expert/init", i) for i in members])
    own = jnp.stack([rng.key(seed, "expert/own", i) for i in members])
    ops = jnp.stack([rng.key(seed, "expert/ops", g) for g in groups])
    return init, own, ops


@lru_cache(maxsize=16)
def advance(train: fit.Fit, devices: tuple[jax.Device, ...]) -> Any:
    """Return ``f(carry, own, ops, images, labels, lr, lo, hi)`` over groups, one a device."""

    def one(carry: Tree, own: Tree, ops: Tree, *rest: Tree) -> Tree:
        return train.advance(carry, fit.Keys(own, ops), *rest)

    return parallel.spread(one, (0, 0, "device", None, None, None, None, None), devices)


def train(
    store: Store,
    net: Net,
    recipe: fit.Recipe,
    lr: float | Sequence[float],
    data: Any,
    groups: int,
    epochs: int,
    seed: int,
    session: Session,
    devices: Sequence[jax.Device],
    stage: str = "experts",
    keep_all: bool = True,
) -> None:
    """Bring the first ``groups`` groups of ``store`` to ``epochs`` epochs.

    Args:
      data: the dataset; ``data.train`` and ``data.test`` are splits in the net's input space.
      lr: constant learning rate; with ``recipe.rates`` one for every step.
      keep_all: False keeps only a group's last snapshot.

    Raises:
      Diverged: the loss of an epoch is not finite; that epoch is not stored.
      Interrupted: a signal arrived; whole epochs are stored.
    """
    store.create()
    rates = jnp.asarray(lr, jnp.float32)
    session.metrics.start(stage)
    if store.has(groups, epochs):
        return
    images, labels = jnp.asarray(data.train.images), jnp.asarray(data.train.labels)
    run = fit.make(net, recipe, len(labels))
    per_group = epochs * run.steps_per_epoch
    bar = session.bar(groups * per_group, stage)
    start = jax.jit(jax.vmap(run.init))
    for lowest in range(0, groups, len(devices)):
        # The same groups meet in one program whenever the run is started again: the same bits.
        now = list(range(groups))[lowest : lowest + len(devices)]
        if all(store.epochs(g) >= epochs for g in now):
            continue
        init, own, ops = keys(seed, now, store.group)
        begin = min(store.epochs(g) for g in now)
        carry = start(init)
        stateful = bool(jax.tree.leaves(carry["optimizer"]))
        if stateful and not all(store.has_state(g, begin) for g in now):
            begin = -1
        if begin < 0:
            _write(store, now, 0, carry)
            begin = 0
        else:
            carry["variables"] = _stack([store.read_group(g, begin) for g in now])
            if stateful and begin:
                like = jax.tree.map(lambda x: x[: store.group], carry["optimizer"])
                carry["optimizer"] = _stack([store.read_state(g, begin, like) for g in now])
        call = advance(run, tuple(devices[: len(now)]))
        for epoch in range(begin, epochs):
            first, total, steps = epoch * run.steps_per_epoch, 0.0, run.steps_per_epoch
            for lo, hi in session.paced(first, first + steps):
                carry, loss = call(carry, own, ops, images, labels, rates, lo, hi)
                total += float(jnp.mean(loss)) * (hi - lo)
                bar.update(now[0] * per_group + hi * len(now), f"loss {float(jnp.mean(loss)):.3f}")
            if not np.isfinite(total):
                group = "squeeze" if stage.startswith("squeeze") else "experts"
                raise Diverged(
                    f"{stage}: a net diverged in epoch {epoch + 1}; try a smaller "
                    f"--config.{group}.lr, with a new --workdir"
                )
            if stateful:  # first: a snapshot says that all before it is there
                _write(store, now, epoch + 1, carry, "optimizer")
            _write(store, now, epoch + 1, carry)
            for g in now:
                store.forget(g, epoch + 1, snapshots=not keep_all)
            done = now[0] * epochs + (epoch + 1) * len(now)
            scalars = {"loss": total / steps, "epoch": epoch + 1, "groups": len(now)}
            if epoch + 1 == epochs and now[0] == 0:
                scalars["accuracy"] = float(accuracy(net, carry["variables"], data.test).mean())
            session.metrics.log(stage, done, **scalars)
    bar.close()
    advance.cache_clear()  # it holds the training images on every device


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
