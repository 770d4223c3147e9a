"""Ordinary training of a network, written once for experts, evaluation nets and the full baseline.

The optimiser is one of ``training/optimisers.py``. The order of the images is one of

``shuffled``    an epoch is a fresh permutation, cut into batches; the last one may be shorter; with
                ``Recipe.balanced`` it is a draw with as many images of each class (``balanced``);
``sequential``  step t takes batch t mod S of the S = n // batch batches, in stored order;
``classwise``   each step draws ``per_class`` images of each of ``classes_per_step`` classes anew;
                the set is class-major;
``drawn``       each step draws ``batch`` images anew, without replacement, independently of others;
``stored``      images, views and soft labels of every step are given: ``soft_labels/objective.py``.

Images that are not all on the device are passed as batches in ``shuffled`` order (``fed``; read by
``training/input_pipeline.py``).
Pairs whose images have several captions are passed with an index of images
(``training/pair_inputs.py``); n counts pairs.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd import augment, parallel
from jdd.augment import cutmix
from jdd.matching import contrastive, losses
from jdd.nets import Net, Output
from jdd.parallel.parts import summed, zeros
from jdd.training import optimisers, orders, pair_inputs
from jdd.training.orders import Keys
from jdd.training.printed import PAIRED
from jdd.training.recipe import Recipe

Tree = Any


def cuts(batch: int, parts: int) -> bool:
    """Return whether a batch has that many equal parts, of at least two images for batch norm."""
    return batch % parts == 0 and (parts == 1 or batch // parts >= 2)


def optimizer_of(recipe: Recipe) -> optimisers.InnerOptimizer:
    """Return a recipe's optimiser."""
    name = recipe.optimizer
    if name == "sgd" and recipe.momentum:
        name = "momentum"
    return optimisers.make(name, recipe.momentum, recipe.weight_decay, recipe.decay)


def flat_gradient(
    gradient: Callable[[Tree], Tree], params: Tree, rho: float, alpha: float, first: Tree = None
) -> Tree:
    """Return the direction of one step of adaptive GSAM, which looks for flat minima.

        g = gradient(w),  e = rho w^2 g / ||w g||,  g' = gradient(w + e)
        direction = g' - alpha (g - g' <g, g'> / ||g'||^2)

    Products are elementwise, norms run over all parameters; if a norm is 0, so is its term.

    Args:
      gradient: the gradient function, of the same batch at every call.
      first: gradient(w), if already computed.

    Source: GSAM (Zhuang et al., ICLR 2022) with ASAM's scaling (Kwon et al., ICML 2021), as FTD
    trains its experts.
    """
    g = gradient(params) if first is None else first
    size = _length(jax.tree.map(jnp.multiply, params, g))
    scale = rho / jnp.where(size > 0, size, 1.0)
    there = gradient(jax.tree.map(lambda w, x: w + scale * jnp.square(w) * x, params, g))
    squared = jnp.square(_length(there))
    shared = sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(x * y), g, there)))
    along = jnp.where(squared > 0, shared / jnp.where(squared > 0, squared, 1.0), 0.0)
    return jax.tree.map(lambda x, y: y - alpha * (x - along * y), g, there)


def _length(tree: Tree) -> jax.Array:
    return jnp.sqrt(sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(tree)))


class Fit(NamedTuple):
    """``init(key) -> carry``; ``advance(carry, keys, images, labels, lr, lo, hi) -> carry, loss``.

    ``advance`` runs steps ``lo`` to ``hi`` (global numbers, traced: no recompilation) and returns
    their mean loss. ``steps_per_epoch`` counts the short last batch. With ``fed``, images and
    labels are those of the steps from ``lo`` on, ``[steps, b, ...]``. ``light``: a step computes so
    little that vmap over several nets is faster on this kind of device (``LIGHT``).
    """

    init: Callable[[jax.Array], Tree]
    advance: Callable[..., tuple[Tree, jax.Array]]
    steps_per_epoch: int
    light: bool = False


# Bytes of activations of a step. Nets under vmap have grouped convolutions. On an H100 these take
# 2.7 times as long at 220 MB (ConvNet of width 128, 256 images), and just over half at 9 MB, where
# launch overhead dominates; the threshold is chosen between the two. On a CPU, one core per net is
# faster.
LIGHT = 32 << 20


def light(net: Net, images: int) -> bool:
    """Return whether vmap over nets is faster, by one net's activations in a step."""
    return jax.default_backend() != "cpu" and net.activations(images) <= LIGHT


@lru_cache(maxsize=64)
def make(
    net: Net,
    recipe: Recipe,
    n: int,
    fed: bool = False,
    over: tuple[jax.Device, ...] = (),
) -> Fit:
    """Return the training of ``net`` on ``n`` images by ``recipe``; pure, for vmap over nets.

    Args:
      fed: batches are passed instead of all images.
      over: devices that share the images of a batch; batch statistics are of the whole batch.

    Raises:
      ValueError: with ``fed``, if the recipe's order is not ``shuffled``; a recipe of stored images
        that stand for several (``factor``), which are decoded first.
    """
    if recipe.factor != 1:
        raise ValueError("images of a set with a factor are decoded first: train_eval.formed")
    if fed and recipe.order != "shuffled":
        raise ValueError(f"batches are fed in shuffled order, not {recipe.order}")
    made = _Training(net, recipe, n, fed, over)
    small = light(net, max(1, made.batch // recipe.parts))
    return Fit(made.init, made.advance, made.per_epoch, small)


@dataclasses.dataclass(frozen=True)
class _Training:
    """The functions of ``Fit``. A carry consists of variables, the optimiser's state, the order of
    the images in this epoch and, with ``Recipe.ema``, the averaged weights.
    """

    net: Net
    recipe: Recipe
    n: int
    fed: bool
    over: tuple[jax.Device, ...]

    @property
    def _relates(self) -> bool:
        """True if the images of a batch, or of its parts, are compared with each other."""
        return self.recipe.distillation is not None and self.recipe.distillation.recipe.relates

    @functools.cached_property
    def batch(self) -> int:
        return min(self.recipe.batch, self.n)

    @functools.cached_property
    def per_epoch(self) -> int:
        return self.recipe.steps_per_epoch(self.n)

    @functools.cached_property
    def optimizer(self) -> optimisers.InnerOptimizer:
        return optimizer_of(self.recipe)

    def init(self, key: jax.Array) -> Tree:
        """Return the carry of a fresh net."""
        variables = self.net.init(key)
        carry = {"variables": variables, "optimizer": self.optimizer.init(variables["params"])}
        if not self.fed:
            carry["order"] = jnp.arange(self.n)
        if self.recipe.ema:
            carry["average"] = variables["params"]
        return carry

    def advance(
        self, carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, lo: Tree, hi: Tree
    ) -> tuple[Tree, jax.Array]:
        """Return the carry after the steps ``lo`` to ``hi`` and their mean loss."""

        def body(step: jax.Array, at: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
            given = (images[step - lo], labels[step - lo]) if self.fed else (images, labels)
            after, loss = self._step(at[0], keys, *given, lr, step)
            return after, at[1] + loss

        carry, total = jax.lax.fori_loop(lo, hi, body, (carry, jnp.zeros(())))
        return carry, total / jnp.maximum(hi - lo, 1)

    def _step(
        self, carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree
    ) -> tuple[Tree, jax.Array]:
        """Run one step: its rate, its batch, its update."""
        epoch, j = step // self.per_epoch, step % self.per_epoch
        lr = jax.tree.map(lambda rate: rate[step] if jnp.ndim(rate) else rate, lr)
        if self.recipe.drop is not None and self.recipe.drop.after_epoch >= -1:
            lr, carry = self._dropped(lr, carry, epoch, j)
        return self._batch_of(carry, keys, images, labels, lr, step, epoch, j)

    def _dropped(self, lr: Tree, carry: Tree, epoch: Tree, j: Tree) -> tuple[Tree, Tree]:
        """Return the rate and the carry after applying ``Recipe.drop`` at the start of a step."""
        assert self.recipe.drop is not None
        first = self.recipe.drop.after_epoch + 1
        factor = self.recipe.drop.factor
        lr = jax.tree.map(lambda rate: jnp.where(epoch >= first, rate * factor, rate), lr)
        fresh = jnp.logical_and(epoch == first, j == 0)
        begun = self.optimizer.init(carry["variables"]["params"])
        state = jax.tree.map(lambda new, s: jnp.where(fresh, new, s), begun, carry["optimizer"])
        return lr, {**carry, "optimizer": state}

    def _batch_of(
        self, carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree,
        epoch: Tree, j: Tree,
    ) -> tuple[Tree, jax.Array]:  # fmt: skip
        """Select the batch of a step, in the recipe's order, and update on it."""
        recipe, n, batch = self.recipe, self.n, self.batch
        if recipe.order == "classwise":
            draw, ipc = orders.epoch_key(keys, epoch), n // recipe.classes
            rows = orders.classwise_rows(
                draw, recipe.classes, ipc, recipe.per_class, recipe.classes_per_step
            )
            x, y = (pair_inputs.rows(tree, rows) for tree in (images, labels))
            return self._update(carry, keys, x, y, lr, step)
        if self.fed or recipe.order == "stored":
            return self._update(carry, keys, images, labels, lr, step)
        if recipe.order == "sequential":
            x, y = (jax.lax.dynamic_slice_in_dim(a, j * batch, batch) for a in (images, labels))
            return self._update(carry, keys, x, y, lr, step)
        # The whole set in one batch: its order is irrelevant.
        if self.per_epoch == 1 and not recipe.balanced:
            return self._update(carry, keys, pair_inputs.whole(images), labels, lr, step)
        if recipe.order == "drawn":
            rows = orders.shuffle(keys, step, n)[:batch]
            x, y = (pair_inputs.rows(tree, rows) for tree in (images, labels))
            return self._update(carry, keys, x, y, lr, step)
        fresh = functools.partial(self._order, keys, epoch, labels)
        order = jax.lax.cond(j == 0, fresh, lambda: carry["order"])
        carry = {**carry, "order": order}

        def take(size: int) -> Callable[[], tuple[Tree, jax.Array]]:
            def run() -> tuple[Tree, jax.Array]:
                index = jax.lax.dynamic_slice(order, (j * batch,), (size,))
                x, y = (pair_inputs.rows(tree, index) for tree in (images, labels))
                return self._update(carry, keys, x, y, lr, step)

            return run

        if not n % batch:
            return take(batch)()
        last = j == self.per_epoch - 1
        done: tuple[Tree, jax.Array] = jax.lax.cond(last, take(n % batch), take(batch))
        return done

    def _order(self, keys: Keys, epoch: Tree, labels: Tree) -> jax.Array:
        """Return the rows of an epoch in shuffled order."""
        if self.recipe.balanced:
            return orders.balanced(keys, epoch, labels, self.recipe.classes)
        return orders.shuffle(keys, epoch, self.n)

    def _update(
        self, carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree
    ) -> tuple[Tree, jax.Array]:
        """Update on a batch: one step of the optimiser, of the batch-norm statistics and of the
        average.
        """
        recipe, variables = self.recipe, carry["variables"]
        x, target = self._shown(keys, images, labels, step)
        (loss, after), grads = self._gradient(variables, variables["params"], x, target)
        if recipe.sam_rho:  # loss and batch statistics are those at the weights themselves
            grads = flat_gradient(
                lambda params: self._gradient(variables, params, x, target)[1],
                variables["params"], recipe.sam_rho, recipe.sam_alpha, grads,
            )  # fmt: skip
        params, state = self.optimizer.update(
            grads, carry["optimizer"], variables["params"], {"lr": lr}
        )
        for _ in range(recipe.norm_updates - 1):  # also at the weights of the step
            again = self.net.apply({**variables, **after}, x, train=True)
            after = {name: again.stats for name in after}
        new = {**variables, **after, "params": params}
        carry = {**carry, "variables": new, "optimizer": state}
        if recipe.ema:
            carry["average"] = self._averaged(carry, variables["params"], step)
        return carry, loss

    def _averaged(self, carry: Tree, before: Tree, step: Tree) -> Tree:
        """Return d a + (1 - d) w for the weights w after a step; before step 0, a is w."""
        d = self.recipe.ema

        def one(first: jax.Array, a: jax.Array, w: jax.Array) -> jax.Array:
            return d * jnp.where(step == 0, first, a) + (1 - d) * w

        return jax.tree.map(one, before, carry["average"], carry["variables"]["params"])

    def _shown(self, keys: Keys, images: Tree, labels: Tree, step: Tree) -> tuple[Tree, Tree]:
        """Return the augmented and mixed batch, and its targets."""
        x, target = self._augmented(keys, images, labels, step)
        if not self.recipe.cutmix:
            return x, target
        key = jax.random.fold_in(jax.random.fold_in(keys.own, 3), step)
        return cutmix.mixed(key, x, target, self.recipe.cutmix)

    def _augmented(self, keys: Keys, images: Tree, labels: Tree, step: Tree) -> tuple[Tree, Tree]:
        """Return the augmented batch and its targets."""
        recipe = self.recipe
        if recipe.distillation is not None:
            return recipe.distillation.view(images, labels, step)
        if recipe.loss in PAIRED:
            w, left, right = (labels[name] for name in ("w", "left", "right"))
            return images, contrastive.similarity(w, left, right, left.shape[1])
        target = losses.targets(labels, recipe.label_kind, recipe.classes)
        if recipe.strategy in ("", "none"):
            return images, target
        kind = augment.kind(recipe.augment)
        op = kind.draw_op(jax.random.fold_in(keys.ops, step), recipe.strategy)
        own = jax.random.fold_in(jax.random.fold_in(keys.own, 1), step)
        shown = kind.apply(
            op, own, images, recipe.strategy, siamese=False, align_corners=recipe.align_corners
        )
        return shown, target

    def _loss(self, out: Output, target: Tree) -> jax.Array:
        logits, distillation = out.logits, self.recipe.distillation
        if distillation is not None:
            loss = distillation.loss(logits, target)
            return loss + distillation.relation_loss(out, target) if self._relates else loss
        if self.recipe.loss in PAIRED:
            return contrastive.LOSSES[self.recipe.loss](logits, target)
        if self.recipe.loss == "squared_error":
            return losses.squared_error(logits, target)
        return losses.cross_entropy(logits, target)

    def _gradient(
        self, variables: Tree, params: Tree, x: Tree, target: Tree
    ) -> tuple[tuple[jax.Array, Tree], Tree]:
        """Return ((loss, batch statistics afterwards), gradient) of a batch at ``params``."""
        normed = {name: variables[name] for name in ("batch_stats",) if name in variables}
        taps = self.recipe.distillation is not None and self.recipe.distillation.taps

        def objective(params: Tree, normed: Tree, x: Tree, target: Tree) -> tuple[jax.Array, Tree]:
            x, target = parallel.shared_out((x, target), self.over)
            given = {**variables, **normed, "params": params}
            out = self.net.apply(given, x, train=True, taps=taps)
            return self._loss(out, target), {name: out.stats for name in normed}

        part = jax.value_and_grad(objective, has_aux=True)
        if self.recipe.loss in PAIRED:  # every image of a batch is paired with every text
            return part(params, normed, x, target)
        size = self.net.part(len(x), bool(normed) or self._relates)
        if self.recipe.parts > 1:
            size = min(len(x), max(1, self.batch // self.recipe.parts))
        if size == len(x):
            return part(params, normed, x, target)
        return _accumulated(functools.partial(part, params), normed, x, target, size)


def _accumulated(
    part: Callable[..., Tree], normed: Tree, x: Tree, target: Tree, size: int
) -> tuple[tuple[jax.Array, Tree], Tree]:
    """Return the result of ``part`` for a whole batch, computed in parts of ``size`` images: losses
    and gradients averaged by number of images; batch statistics are updated by each part in turn.
    """

    def at(lo: Any, count: int, normed: Tree) -> tuple[Tree, Tree]:
        pieces = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, lo, count), (x, target))
        (loss, normed), grads = part(normed, *pieces)
        return jax.tree.map(lambda a: a * (count / len(x)), (loss, grads)), normed

    pieces = jax.tree.map(lambda a: a[:size], (x, target))
    (loss, _), grads = jax.eval_shape(part, normed, *pieces)
    whole, zero = len(x) // size, zeros((loss, grads))
    total, after = summed(lambda i, s: at(i * size, size, s), zero, 0, whole, normed)
    if rest := len(x) - whole * size:
        last, after = at(whole * size, rest, after)
        total = jax.tree.map(jnp.add, total, last)
    loss, grads = total
    return (loss, after), grads


def evaluated(carry: Tree) -> Tree:
    """Return the variables for testing a trained net: its own, or with averaged weights.

    With ``Recipe.ema`` the weights are averaged; running batch-norm statistics are the trained
    net's.
    """
    variables: Tree = carry["variables"]
    return {**variables, "params": carry["average"]} if "average" in carry else variables
