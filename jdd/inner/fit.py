"""Ordinary training of a network, written once for experts, evaluation nets and the full baseline.

SGD as PyTorch has it:  v <- m v + (g + wd theta),  theta <- theta - lr v   (v starts at g).
An epoch is a fresh permutation, batches of ``batch``, the last one as short as it comes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.augment import dsa
from jdd.matching import losses
from jdd.nets import Net

Tree = Any


class Recipe(NamedTuple):
    """Everything that fixes a training run but its data, rate and keys; hashable.

    ``drop_epoch`` is the first epoch (from 0) at ``lr * drop_factor`` with the momentum zeroed,
    negative for a constant rate. ``strategy`` is DSA's, '' for no augmentation.
    """

    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    drop_epoch: int = -1
    drop_factor: float = 0.1
    strategy: str = ""
    align_corners: bool = True
    loss: str = "cross_entropy"
    label_kind: str = "hard"
    classes: int = 10


class Keys(NamedTuple):
    """Keys of one net: ``own`` for its shuffles and draws, ``ops`` shared by nets trained together.

    The name of the DSA operation is drawn from ``ops``: nets in one vmap then run one operation a
    step instead of all six. Each net's own sequence is distributed as published; parameters,
    shuffles and initial weights stay independent.
    """

    own: jax.Array
    ops: jax.Array


class Fit(NamedTuple):
    """``init(key) -> carry``; ``advance(carry, keys, images, labels, lr, lo, hi) -> carry, loss``.

    Steps ``lo`` to ``hi`` (global numbers, traced: no recompilation) are run; the loss is their
    mean. ``steps_per_epoch`` counts the short last batch.
    """

    init: Callable[[jax.Array], Tree]
    advance: Callable[..., tuple[Tree, jax.Array]]
    steps_per_epoch: int


@lru_cache(maxsize=64)
def make(net: Net, recipe: Recipe, n: int) -> Fit:
    """Return the training of ``net`` on ``n`` images by ``recipe``; pure, for vmap over nets."""
    batch = min(recipe.batch, n)
    rest = n % batch
    per_epoch = n // batch + bool(rest)
    loss_fn = losses.squared_error if recipe.loss == "squared_error" else losses.cross_entropy

    def init(key: jax.Array) -> Tree:
        variables = net.init(key)
        velocity = jax.tree.map(jnp.zeros_like, variables["params"]) if recipe.momentum else ()
        return {"variables": variables, "velocity": velocity, "order": jnp.arange(n)}

    def augmented(images: jax.Array, keys: Keys, step: jax.Array) -> jax.Array:
        if recipe.strategy in ("", "none"):
            return images
        op = dsa.draw_op(jax.random.fold_in(keys.ops, step), recipe.strategy)
        own = jax.random.fold_in(jax.random.fold_in(keys.own, 1), step)
        return dsa.apply(
            op, own, images, recipe.strategy, siamese=False, align_corners=recipe.align_corners
        )

    def sgd(carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree) -> Tree:
        variables = carry["variables"]
        target = losses.targets(labels, recipe.label_kind, recipe.classes)
        x = augmented(images, keys, step)

        def objective(params: Tree) -> tuple[jax.Array, Tree]:
            out = net.apply({**variables, "params": params}, x, train=True)
            return loss_fn(out.logits, target), out.stats

        (loss, stats), grads = jax.value_and_grad(objective, has_aux=True)(variables["params"])
        grads = jax.tree.map(lambda g, p: g + recipe.weight_decay * p, grads, variables["params"])
        velocity = carry["velocity"]
        if recipe.momentum:
            velocity = jax.tree.map(lambda v, g: recipe.momentum * v + g, velocity, grads)
            grads = velocity
        params = jax.tree.map(lambda p, g: p - lr * g, variables["params"], grads)
        new = {**variables, "params": params}
        if stats:
            new["batch_stats"] = stats
        return {**carry, "variables": new, "velocity": velocity}, loss

    def one(carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree) -> Tree:
        epoch, j = step // per_epoch, step % per_epoch
        if recipe.drop_epoch >= 0:
            dropped = epoch >= recipe.drop_epoch
            lr = jnp.where(dropped, lr * recipe.drop_factor, lr)
            if recipe.momentum:
                fresh = jnp.logical_and(epoch == recipe.drop_epoch, j == 0)
                zeroed = jax.tree.map(lambda v: jnp.where(fresh, 0.0, v), carry["velocity"])
                carry = {**carry, "velocity": zeroed}
        if per_epoch == 1:  # the whole set in one batch: its order says nothing
            return sgd(carry, keys, images, labels, lr, step)
        shuffle = jax.random.fold_in(jax.random.fold_in(keys.own, 0), epoch)
        order = jax.lax.cond(
            j == 0, lambda: jax.random.permutation(shuffle, n), lambda: carry["order"]
        )
        carry = {**carry, "order": order}

        def take(size: int) -> Callable[[], Tree]:
            def run() -> Tree:
                index = jax.lax.dynamic_slice(order, (j * batch,), (size,))
                return sgd(carry, keys, images[index], labels[index], lr, step)

            return run

        if not rest:
            return take(batch)()
        return jax.lax.cond(j == per_epoch - 1, take(rest), take(batch))

    def advance(
        carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, lo: Tree, hi: Tree
    ) -> tuple[Tree, jax.Array]:
        def body(step: jax.Array, at: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
            after, loss = one(at[0], keys, images, labels, lr, step)
            return after, at[1] + loss

        carry, total = jax.lax.fori_loop(lo, hi, body, (carry, jnp.zeros(())))
        return carry, total / jnp.maximum(hi - lo, 1)

    return Fit(init, advance, per_epoch)
