"""Stage ``experts``: trajectories of nets trained on the real images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.data import Dataset, Split
from jdd.data.pairs import PairDataset, PairSplit
from jdd.nets import Net
from jdd.parallel import planned
from jdd.pretrained import expert_training, train
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, locked
from jdd.stages.base import Estimate, Stage, pace, scaled, share, timed
from jdd.training import trainer
from jdd.training.recipe import Recipe


def surplus(context: RunContext) -> str:
    """Return in words that whole groups are more experts than requested; '' if they are not."""
    requested, group = context.config.experts.count, context.store.group
    made = context.groups * group
    if made <= requested:
        return ""
    fits = max(size for size in range(1, group + 1) if requested % size == 0)
    less = f"--config.experts.group={fits}, with a new --workdir, trains {requested}"
    return f"{requested} experts asked for, {made} trained (groups of {group}); {less}"


def _run(context: RunContext, session: Session) -> None:
    config = context.config
    if words := surplus(context):
        session.say(f"experts: {words}")
    batch, images = config.experts.batch, context.source.train.size
    if batch >= images:
        session.say(
            f"experts: an epoch is one step: experts.batch={batch} takes all {images} training "
            f"images at once; --config.experts.batch={max(1, images // 10)} makes ten or more of it"
        )
    rates = expert_training.rates(context.recipe(), config.experts, images)
    with locked(context.store.directory, session):
        train.train(
            context.store, context.net, context.recipe(), rates,
            context.source, context.groups,
            config.experts.epochs, config.experts.seed, session, context.devices,
        )  # fmt: skip


def cost(context: RunContext, group: int, epochs: int, batches: int) -> Estimate:
    """Estimate ``batches`` groups of ``group`` nets trained ``epochs`` epochs on real images."""
    recipe, data = context.recipe(), context.training_data()
    return training_cost(context.net, recipe, data, group, epochs, batches, context.devices)


def training_cost(
    net: Net,
    recipe: Recipe,
    data: Dataset | PairDataset,
    group: int,
    epochs: int,
    batches: int,
    devices: Sequence[jax.Device],
) -> Estimate:
    """Estimate ``batches`` groups of ``group`` nets trained ``epochs`` epochs by ``recipe``."""
    one = tuple(devices[:1])
    n = data.train.size
    steps, batch = recipe.steps_per_epoch(n), min(recipe.batch, n)
    few, nets = share(batch, data.shape, one), group
    if one[0].platform == "cpu" and few < batch:  # on a CPU a group takes as long as its nets do
        nets = 1
    # Two batches of images represent all: reading them is not timed.
    images, labels = _first(data.train, 2 * few)
    run = trainer.make(net, recipe.replace(batch=few), min(n, 2 * few))
    init, own, ops = train.keys(0, [0], nets)
    carry = jax.jit(jax.vmap(run.init))(init)
    call = train.advance(run, one)
    lr = jnp.full(2, 0.01, jnp.float32)
    lo, hi = np.int32(0), np.int32(2)
    args = (carry, own, ops, images, labels, lr, lo, hi)
    step = timed(lambda: call(*args), 2) / 2 * batch / few * group / nets
    seconds = step * steps * epochs * -(-batches // len(devices))
    trained = jax.tree.leaves((carry["variables"], carry["optimizer"]))
    size = sum(leaf.nbytes for leaf in trained) // nets * group
    of = scaled(few, batch) + scaled(nets, group, "nets")
    if few < batch or nets < group:  # the memory is that of the whole step, which does not run
        run = trainer.make(net, recipe, 2 * batch)
        init, own, ops = train.keys(0, [0], group)
        whole = jax.eval_shape(jax.vmap(run.init), init)
        shown = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((2 * batch, *a.shape[1:]), a.dtype), args[3:5]
        )
        call, args = train.advance(run, one), (whole, own, ops, *shown, lr, lo, hi)
    return Estimate(
        seconds,
        planned(call, *args),
        f"{group} nets at once, {steps} steps an epoch of {pace(step)}" + of,
        batches * size,
    )


def _first(split: Split | PairSplit, count: int) -> tuple[Any, Any]:
    """Return the inputs and targets of the first ``count`` images, or pairs, on the device."""
    if isinstance(split, Split):
        return jnp.asarray(split.images[:count]), jnp.asarray(split.labels[:count])
    image = split.images[split.image_of[:count]]
    inputs = {"image": image, "text": split.text[:count]}
    targets = {name: values[:count] for name, values in split.targets.items()}
    found: tuple[Any, Any] = jax.tree.map(jnp.asarray, (inputs, targets))
    return found


def _estimate(context: RunContext) -> Estimate:
    config = context.config
    done = [context.store.epochs(g) for g in range(context.groups)]
    left = [epochs for epochs in done if epochs < config.experts.epochs]
    found = cost(context, context.store.group, config.experts.epochs, len(left))
    found = found._replace(disk=found.disk + _snapshots(context, left))
    more = surplus(context)
    return found._replace(note=f"{found.note}; {more}") if more else found


def _snapshots(context: RunContext, left: Sequence[int]) -> int:
    """Return the bytes of all missing snapshots but one of each group, which ``cost`` counts.

    ``left`` has the last epoch that a group has, -1 for none: epoch 0 is a snapshot too.
    """
    net = jax.eval_shape(context.net.init, jax.random.key(0))
    size = context.store.group * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(net))
    return sum(context.config.experts.epochs - last - 1 for last in left) * size


def _done(context: RunContext) -> bool:
    return context.store.has(context.groups, context.config.experts.epochs)


STAGE = Stage(
    name="experts",
    fingerprint=lambda context: fingerprint(
        [context.settings(context.store.group), context.groups, context.config.experts.epochs]
    ),
    run=_run,
    estimate=_estimate,
    done=_done,
)
