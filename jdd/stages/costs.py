"""Cost estimates of training nets on a set: a few steps, timed on the set of step 0.

If a full step takes too long, a step with fewer images is timed instead (``base.share``).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import methods, parallel, rng
from jdd.config.files import stage_names
from jdd.evaluation import train_eval
from jdd.methods import decoupled
from jdd.nets import Net
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.run.context import RunContext
from jdd.stages import label_stores, pairs, phases
from jdd.stages.base import Estimate, pace, scaled, share, timed, timed_in_full
from jdd.training import trainer


def example(context: RunContext) -> AnyProduct:
    """Return the set of step 0 as nets see it, by untrained experts; black images if relabelled."""
    if "relabel" in stage_names(context.config):
        count = context.config.ipc * context.data.classes
        black = np.broadcast_to(np.float32(0), (count, *context.data.shape))
        return decoupled.dataset(context.blank, black, 0)
    method = methods.make(context.config, phases.blank(context))
    found = method.distilled(method.init(context.seeds[0]), 0)
    return train_eval.formed(found) if isinstance(found, DistilledSet) else found


def _material(dset: AnyProduct) -> tuple[Any, Any]:
    """Return the inputs and targets of the nets for one epoch."""
    if isinstance(dset, PairSet):
        return pairs.material(dset)
    if isinstance(dset, GeneratorSet):
        return dset.images(rng.key(0, "estimate")), dset.labels
    return dset.images, dset.labels


Seen = dict[tuple[str, int], tuple[float, int]]


def cost(
    context: RunContext, net: Net, n: int, memory: bool = True, seen: Seen | None = None
) -> Estimate:
    """Estimate the training of ``n`` nets on the set by timing a few steps on the set of step 0.

    Without ``memory`` the temporaries are those of the images that are timed, scaled.
    ``seen``: seconds of a net's step, and temporaries, by (net, nets timed together): measured
    steps are added, and with ``memory=False`` a step in it is not measured again.
    """
    dset = example(context)
    planned, more = train_eval.plan(dset), list[Any]()
    run, size, devices = trainer.make(net, planned.recipe, dset.size), dset.size, context.devices
    count, batch = min(context.config.eval.at_once or n, n), min(planned.recipe.batch, size)
    few = batch
    if planned.recipe.order in ("shuffled", "stored", "drawn"):
        few = share(batch, context.data.shape, devices)
    steps, together = 10, count
    if not timed_in_full(steps * count * batch * math.prod(context.data.shape[:2]), devices):
        steps, together = 2, 1
    if seen and not memory and (net.name, together) in seen:
        one, temporaries = seen[net.name, together]
        return _estimated(context, net, n, one, temporaries, planned, run, (few, batch))
    # Expensive steps are timed on a set of one small batch, one net at a time.
    used = size if few == batch else few
    if planned.recipe.distillation is not None and isinstance(dset, DistilledSet):
        planned = planned._replace(recipe=planned.recipe.replace(batch=few))
        planned, stored_labels, shared = label_stores.blank(
            context, planned, dset.labels[:used], steps
        )
        more = [shared] if shared else []
    timing = trainer.make(net, planned.recipe.replace(batch=few), used)
    init, advance = train_eval.compiled(timing, tuple(devices[:1]), bool(more))
    keys = [jnp.stack([rng.key(0, f"estimate/{w}", i) for i in range(together)]) for w in "io"]
    images, labels = jax.tree.map(
        lambda a: jnp.asarray(train_eval.repeated(np.asarray(a)[:used], together)), _material(dset)
    )
    if planned.recipe.distillation is not None:
        labels = jax.tree.map(
            lambda a: jnp.asarray(train_eval.repeated(a, together)), stored_labels
        )
    lr = planned.rates
    span = (np.int32(0), np.int32(steps))
    args = (init(keys[0]), keys[1], rng.key(0, "ops"), images, labels, lr, *span, *more)
    one = timed(lambda: advance(*args)) / steps * batch / few / together
    at_once = parallel.threads(count) if devices[0].platform == "cpu" else count
    temporaries = parallel.planned(advance, *args) * batch // few
    temporaries *= at_once if together < count else 1
    if seen is not None:
        seen[net.name, together] = one, temporaries
    if memory and few < batch and planned.recipe.distillation is None:  # of the whole step, not run
        whole = trainer.make(net, planned.recipe.replace(batch=batch), size)
        init, advance = train_eval.compiled(whole, tuple(devices[:1]))
        keys = [jnp.stack([rng.key(0, f"estimate/{w}", i) for i in range(count)]) for w in "io"]
        shown = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct((count, size, *a.shape[2:]), a.dtype), args[3:5]
        )
        begun = jax.eval_shape(jax.vmap(whole.init), keys[0])
        temporaries = parallel.planned(advance, begun, keys[1], args[2], *shown, *args[5:])
    return _estimated(context, net, n, one, temporaries, planned, run, (few, batch))


def _estimated(
    context: RunContext,
    net: Net,
    n: int,
    one: float,
    temporaries: int,
    planned: train_eval.Plan,
    run: trainer.Fit,
    images: tuple[int, int],
) -> Estimate:
    """Return the cost of ``n`` nets, of which a step takes ``one`` seconds each.

    ``images``: how many of a step's images were timed, and all of them.
    """
    count, devices = min(context.config.eval.at_once or n, n), len(context.devices)
    rounds = -(-n // count) * -(-count // devices)
    return Estimate(
        one * planned.length(run) * rounds,
        temporaries,
        f"{n} x {net.name}, {pace(one * count)} a step" + scaled(*images),
    )
