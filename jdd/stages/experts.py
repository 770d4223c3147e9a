"""Stage ``experts``: trajectories of nets trained on the real images."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.experts import train
from jdd.inner import feed, fit
from jdd.nets import Net
from jdd.parallel import planned
from jdd.session import Session, locked
from jdd.stages.base import Estimate, Stage, timed
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
    one, fed = tuple(devices[:1]), feed.fed(data.train)
    n = len(data.train.labels)
    run = fit.make(net, recipe, n, fed)
    init, own, ops = train.keys(0, [0], group)
    carry = jax.jit(jax.vmap(run.init))(init)
    call = train.advance(run, one, fed)
    lr = jnp.full(2, 0.01, jnp.float32) if recipe.rates else jnp.float32(0.01)
    lo, hi = np.int32(0), np.int32(2)
    if fed:
        with contextlib.closing(feed.Feed(data.train, recipe, own, range(1), one)) as source:
            _, last, images, labels = next(source.epoch(0))
        hi = np.int32(min(last, 2))
    else:
        images, labels = jnp.asarray(data.train.images), jnp.asarray(data.train.labels)
    args = (carry, own, ops, images, labels, lr, lo, hi)
    step = timed(lambda: call(*args), 2) / int(hi)
    seconds = step * run.steps_per_epoch * epochs * -(-batches // len(devices))
    return Estimate(
        seconds,
        planned(call, *args),
        f"{group} nets at once, {run.steps_per_epoch} steps an epoch of {step * 1e3:.0f} ms",
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
