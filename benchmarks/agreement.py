"""Do both sides compute the same? In float64, on the same weights, images and draws.

In float32 no two implementations of a ReLU net agree closely: of the tens of millions of
activations in an outer step some lie within rounding of zero, and each that falls on the other side
changes the gradient by a jump. At width 128 the images' gradients of two float32 sides are a few
thousandths apart. In float64 none does, and what is left is the mathematics.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks import matching_step, meta_step, pair_step, peers, recover_step, replay
from benchmarks.meta_step import Size
from benchmarks.peers import recover, vl
from benchmarks.peers import training as peer_training
from jdd.training import trainer
from jdd.training.recipe import Recipe

Tree = Any
LIMIT = 1e-6
DOUBLE, SINGLE = 1e-10, 1e-3  # of one step of matching
STEPS = 4


class Disagreement(AssertionError):
    """The two sides do not compute the same, so that their times mean nothing."""


def _double(tree: Tree) -> Tree:
    def cast(x: Any) -> Any:
        return jnp.asarray(x, jnp.float64) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree.map(cast, tree)


def outer_step(size: Size, estimator: str, theirs: ModuleType) -> dict[str, float]:
    """Return how far apart loss and gradients are after a few steps, relative to jdd's.

    Raises:
      Disagreement: further than ``LIMIT``.
    """
    size = size._replace(steps=min(size.steps, STEPS))
    with jax.enable_x64(True):
        step = meta_step.make(size, estimator=estimator)
        step = step._replace(variables=_double(step.variables), batch=_double(step.batch))
        gradient, args = step.gradient()
        (loss, _), grads = gradient(*args)
        segment = replay.segment(step.variables, step.batch, step.labels)
        draws = replay.draws(args[3][0], size.steps, step.strategy, step.variables["images"])
        found = theirs.meta_gradient(segment, draws)
        apart = {
            "loss": replay.apart(found.loss, loss),
            "images": replay.apart(found.images.permute(0, 2, 3, 1), grads["images"]),
            "rate": replay.apart(found.rate, grads["lr"]),
        }
    return _checked(apart)


def pairs(size: pair_step.Size) -> dict[str, float]:
    """Return how far apart loss and all gradients of a step of pairs are, relative to jdd's.

    In float64, of the same net, with fewer and smaller pictures than are timed.

    Raises:
      Disagreement: further than ``DOUBLE``.
    """
    size = size._replace(pairs=min(size.pairs, 10), side=min(size.side, 24), steps=STEPS)
    with jax.enable_x64(True):
        step = pair_step.make(size)
        step = step._replace(variables=_double(step.variables), batch=_double(step.batch))
        gradient, args = step.gradient()
        (loss, _), grads = gradient(*args)
        found = vl.meta_gradient(replay.pairs(step), size.steps)
    return _checked({"loss": replay.apart(found.loss, loss), **_learned(found, grads)}, DOUBLE)


def pairs_single(segment: vl.Segment, ours: Any, steps: int) -> dict[str, float]:
    """Return how far apart both sides are in float32, as they are timed; nothing is refused."""
    (loss, _), grads = ours
    found = vl.meta_gradient(segment, steps)
    return {"loss": replay.apart(found.loss, loss), **_learned(found, grads)}


def _learned(found: vl.Gradient, grads: Tree) -> dict[str, float]:
    ours = replay.learned(grads)
    return {name: replay.apart(found.learned[name], g) for name, g in ours.items()}


@contextlib.contextmanager
def _in_full() -> Iterator[None]:
    """Have float32 products computed as such on both sides, whatever is timed afterwards."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    try:
        for switch in switches:
            switch.allow_tf32 = False
        with jax.default_matmul_precision("highest"):
            yield
    finally:
        for switch, allowed in zip(switches, before, strict=True):
            switch.allow_tf32 = allowed


@_in_full()
def matching(method: str, size: matching_step.Size, theirs: ModuleType) -> dict[str, float]:
    """Return how far apart loss and images' gradient of one step are, relative to jdd's.

    In float64 at a small size, whose weights of real images (1/16) float32 holds exactly. In
    float32 at ``size``, against the peer's own float64, by the median over images: where a single
    activation falls on the other side of zero its image is a hundredth off, on either side. The
    peer's own float32 is told too.

    Raises:
      Disagreement: further than ``DOUBLE`` or ``SINGLE``.
    """
    small = size._replace(width=8, ipc=2, real=16)
    with jax.enable_x64(True):
        step = matching_step.make(method, small)
        step = step._replace(carry=_double(step.carry), batch=_double(step.batch))
        (loss, _), grads = step.gradient(step.carry, step.batch)
        found = theirs.match(*replay.classes(step))
        double = _matched(found, loss, grads["images"])
    step = matching_step.make(method, size)
    (loss, _), grads = step.gradient(step.carry, step.batch)
    classes, draws = replay.classes(step)
    found, truth = theirs.match(classes, draws), theirs.match(*replay.double(classes, draws))
    double = _checked(double, DOUBLE)
    own = replay.images(grads["images"])
    single = {
        "loss_float32": replay.apart(truth.loss, loss),
        "images_float32_median": replay.median_apart(own, truth.images),
    }
    return {
        **{f"{name}_float64_small": value for name, value in double.items()},
        **_checked(single, SINGLE),
        "images_float32": replay.apart(own, truth.images),
        "torch_images_float32_median": replay.median_apart(found.images, truth.images),
        "torch_images_float32": replay.apart(found.images, truth.images),
    }


def _matched(found: Any, loss: Any, images: Any) -> dict[str, float]:
    return {
        "loss": replay.apart(found.loss, loss),
        "images": replay.apart(found.images.permute(0, 2, 3, 1), images),
    }


@_in_full()
def recovery(size: recover_step.Size) -> dict[str, float]:
    """Return how far apart loss, images' gradient and, after two steps, images are.

    In float64 at a small size, where the view is a shift as CIFAR's and where it is a crop as
    Tiny-ImageNet's; in float32 at ``size``, against the peer's own float64: see ``matching``.

    Raises:
      Disagreement: further than ``DOUBLE`` or ``SINGLE``.
    """
    small = size._replace(width=8, batch=10, at_once=2)
    found: dict[str, float] = {}
    for crop in ("none", "resized"):
        with jax.enable_x64(True):
            step = recover_step.make(small, jnp.float64, crop=crop, flip=0.5)
            found |= _checked(_two_steps(step, f"float64_small_{crop}"), DOUBLE)
    step = recover_step.make(size)
    (_, _), grads = step.gradient(step.carry, step.batch)
    net, batches, recipe = replay.recovered(step)
    own = torch.cat([recover.match(net, batch, recipe).images for batch in batches])
    with jax.enable_x64(True):
        net, batches, recipe = replay.recovered(recover_step.double(step))
        truth = torch.cat([recover.match(net, batch, recipe).images for batch in batches])
    ours = replay.images(grads["images"]) * len(batches)
    single = {"images_float32_median": replay.median_apart(ours, truth)}
    return found | {
        **_checked(single, SINGLE),
        "images_float32": replay.apart(ours, truth),
        "torch_images_float32_median": replay.median_apart(own, truth),
        "torch_images_float32": replay.apart(own, truth),
    }


def _two_steps(step: matching_step.Step, name: str) -> dict[str, float]:
    """Return how far apart the first step's gradient and the second step's images are."""
    net, batches, recipe = replay.recovered(step)
    movers = [recover.ImageAdam(batch.images, recipe) for batch in batches]
    apart: dict[str, float] = {}
    for _ in range(2):
        (loss, extra), grads = step.gradient(step.carry, step.batch)
        found = [recover.match(net, batch, recipe) for batch in batches]
        if not apart:
            theirs = torch.cat([one.images for one in found]).permute(0, 2, 3, 1)
            apart[f"loss_{name}"] = replay.apart(sum(one.loss for one in found), 2 * loss)
            apart[f"images_{name}"] = replay.apart(theirs / len(found), grads["images"])
        carry, _ = step.update(step.carry, ((loss, extra), grads), jnp.asarray(True))
        step = step._replace(carry=carry)
        for mover, one in zip(movers, found, strict=True):
            mover.step(one.images)
        _, batches, _ = replay.recovered(step)
        pairs = zip(batches, movers, strict=True)
        batches = [batch._replace(images=mover.images) for batch, mover in pairs]
    moved = torch.cat([mover.images for mover in movers]).permute(0, 2, 3, 1)
    apart[f"moved_{name}"] = replay.apart(moved, step.carry.state.variables["images"])
    return apart


def training(
    size: Size, recipe: Recipe, train: Callable[..., tuple[Any, Any]], ops_axis: bool
) -> dict[str, float]:
    """Return how far apart the weights are after a few steps of one batch, not augmented.

    Raises:
      Disagreement: further than ``LIMIT``.
    """
    recipe = recipe.replace(strategy="", batch=20)
    with jax.enable_x64(True):
        net = meta_step.net_of(size)
        run = trainer.make(net, recipe, recipe.batch)
        init, advance = train(run, tuple(jax.devices()[:1]))
        keys = jax.random.split(jax.random.key(0), 2)
        x = jnp.asarray(meta_step.noise((recipe.batch, *size.shape)), jnp.float64)
        y = jnp.arange(recipe.batch) % size.classes
        carry = _double(init(keys))
        theirs = replay.weights(jax.tree.map(lambda p: p[0], carry["variables"]["params"]))
        before = [w.clone() for w in theirs]
        many = tuple(jnp.broadcast_to(a, (2, *a.shape)) for a in (x, y))
        ops = keys[:1] if ops_axis else keys[0]
        carry, _ = advance(carry, keys, ops, *many, jnp.float64(0.01), 0, STEPS)
        ours = replay.weights(jax.tree.map(lambda p: p[0], carry["variables"]["params"]))
        peer_training.train(
            [w.requires_grad_() for w in theirs],
            replay.images(x),
            replay.tensor(y).long(),
            STEPS,
            peer_training.Recipe(0.01, recipe.momentum, recipe.weight_decay, recipe.batch),
        )
        peers.wait()
        moved = [[a.detach() - b for a, b in zip(w, before, strict=True)] for w in (theirs, ours)]
    return _checked({"weights_moved": replay.apart(*moved)})


def _checked(apart: dict[str, float], limit: float = LIMIT) -> dict[str, float]:
    if not max(apart.values()) <= limit:
        raise Disagreement(f"jdd and its PyTorch peer differ, nothing is timed: {apart}")
    assert all(np.isfinite(list(apart.values())))
    return apart
