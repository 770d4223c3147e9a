"""Stage ``experts``: trajectories of nets trained on the real images."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.experts import train
from jdd.inner import fit
from jdd.nets import Net
from jdd.parallel import planned
from jdd.session import Session, locked
from jdd.stages.base import Estimate, Stage, scaled, share, timed
from jdd.work import Work, fingerprint


def _run(work: Work, session: Session) -> None:
    config, asked = work.config, int(work.config.experts.count)
    made = work.groups * work.store.group
    if made != asked:
        session.say(f"experts: {asked} asked for, {made} trained (groups of {work.store.group})")
    with locked(work.store.directory, session):
        train.train(
            work.store, work.net, work.recipe(), float(config.experts.lr), work.source, work.groups,
            int(config.experts.epochs), int(config.experts.seed), session, work.devices,
        )  # fmt: skip


def cost(work: Work, group: int, epochs: int, batches: int, flat: bool = True) -> Estimate:
    """Foretell ``batches`` groups of ``group`` nets trained ``epochs`` epochs on real images."""
    recipe, data = work.recipe(flat), work.taught(flat)
    return training_cost(work.net, recipe, data, group, epochs, batches, work.devices)


def training_cost(
    net: Net, recipe: fit.Recipe, data: Any, group: int, epochs: int, batches: int, devices: Any
) -> Estimate:
    """Foretell ``batches`` groups of ``group`` nets trained ``epochs`` epochs by ``recipe``."""
    one = tuple(devices[:1])
    n = len(data.train.labels)
    steps, batch = fit.steps_per_epoch(recipe, n), min(recipe.batch, n)
    few = share(batch, data.shape, one)
    # Two batches' images stand for all: reading them is not what is timed.
    images, labels = data.train.images[: 2 * few], jnp.asarray(data.train.labels[: 2 * few])
    run = fit.make(net, recipe._replace(batch=few), len(labels))
    init, own, ops = train.keys(0, [0], group)
    carry = jax.jit(jax.vmap(run.init))(init)
    call = train.advance(run, one)
    lr = jnp.full(2, 0.01, jnp.float32) if recipe.rates else jnp.float32(0.01)
    lo, hi = np.int32(0), np.int32(2)
    args = (carry, own, ops, jnp.asarray(images), labels, lr, lo, hi)
    step = timed(lambda: call(*args), 2) / 2 * batch / few
    seconds = step * steps * epochs * -(-batches // len(devices))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves((carry["variables"], carry["optimizer"])))
    return Estimate(
        seconds,
        planned(call, *args) * batch // few,
        f"{group} nets at once, {steps} steps an epoch of {step * 1e3:.0f} ms" + scaled(few, batch),
        batches * size,
    )


def _estimate(work: Work) -> Estimate:
    config = work.config
    left = [g for g in range(work.groups) if work.store.epochs(g) < int(config.experts.epochs)]
    return cost(work, work.store.group, int(config.experts.epochs), len(left))


def _done(work: Work) -> bool:
    return work.store.has(work.groups, int(work.config.experts.epochs))


STAGE = Stage(
    name="experts",
    inputs=(),
    fingerprint=lambda work: fingerprint(
        [work.settings(work.store.group), work.groups, int(work.config.experts.epochs)]
    ),
    run=_run,
    estimate=_estimate,
    done=_done,
)
