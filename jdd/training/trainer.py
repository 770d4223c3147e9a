"""Ordinary training of a network, written once for experts, evaluation nets and the full baseline.

The optimiser is one of ``training/optimisers.py``. The order of the images is one of

``shuffled``    an epoch is a fresh permutation, cut into batches, the last as short as it comes;
``sequential``  step t takes batch t mod S of the S = n // batch ones, in the order they are stored;
``classwise``   a step draws ``per_class`` images of each of ``classes_per_step`` classes, afresh;
                the set is class-major;
``stored``      images, views and soft labels of every step are given: ``soft_labels/objective.py``.

Of images that are not all on the device the batches are given, in the order that ``shuffled`` would
take them in (``fed``; ``training/input_pipeline.py`` reads them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import augment, parallel
from jdd.matching import losses
from jdd.nets import Net
from jdd.soft_labels.objective import DistillationLoss
from jdd.training import optimisers

Tree = Any


class Recipe(NamedTuple):
    """Everything that fixes a training run but its data, rate and keys; hashable.

    ``optimizer`` is sgd (with ``momentum``, 0 for none), adam or adamw, which decays what ``decay``
    says (``optim.DECAYS``). ``drop_epoch`` is the first epoch
    (from 0) at ``lr * drop_factor`` with the optimiser's state renewed, negative for none.
    ``rates``: the rate is given for every step, ``[T]``, in place of one. ``order``, ``per_class``
    and ``classes_per_step`` (0: all): see the module's text. ``augment`` is one of
    ``augment.KINDS``, ``strategy`` its operations, '' for none. ``sam_rho`` and ``sam_alpha``: see
    ``flat_gradient``; 0 for the plain gradient. ``lesson``: how stored labels are read and what
    is lost on them, for ``order="stored"``. ``parts``: the gradient of a batch is the mean over so
    many equal parts, one after another, of which batch norm sees one at a time and moves its
    running statistics by each; an epoch's short last batch is cut into parts as large, and what is
    left. ``norm_updates``: how often a step
    moves the running statistics of batch norms, on one and the same batch.
    """

    optimizer: str = "sgd"

    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    drop_epoch: int = -1
    drop_factor: float = 0.1
    augment: str = "dsa"
    strategy: str = ""
    align_corners: bool = True
    loss: str = "cross_entropy"
    label_kind: str = "hard"
    classes: int = 10
    rates: bool = False
    order: str = "shuffled"
    per_class: int = 0
    classes_per_step: int = 0
    sam_rho: float = 0.0
    sam_alpha: float = 0.0
    decay: str = "all"
    distillation: DistillationLoss | None = None
    parts: int = 1
    norm_updates: int = 1


ORDERS = ("shuffled", "sequential", "classwise", "stored")
SCHEDULES = ("warmup_cosine", "cosine")


def scheduled(
    rate: float, steps: int, schedule: Mapping[str, Any], per_epoch: int = 1
) -> tuple[float, ...]:
    """Return the rate of every step of a recipe's schedule; ``steps`` of them.

    ``warmup_cosine``, with W = min(warmup, steps // 2) and f = final:

        rate_t = rate t / W                                                     t < W
        rate_t = rate (f + (1 - f) (1 + cos(pi (t - W) / (steps - W))) / 2)     t >= W

    ``cosine``, constant within an epoch e of E, with W = warmup epochs and s = stretch; s = 1 falls
    to 0, s = 2 to half the rate:

        rate_e = rate (0.01 + 0.99 e / W)                                       e < W
        rate_e = rate (1 + cos(pi (e - W) / (s (E - W)))) / 2                   e >= W
    """
    if schedule["kind"] == "cosine":
        epochs = -(-steps // per_epoch)
        ramp, e = int(schedule.get("warmup", 0)), np.arange(steps) // per_epoch
        stretch = float(schedule.get("stretch", 1.0)) * max(epochs - ramp, 1)
        fall = (1 + np.cos(np.pi * (e - ramp) / stretch)) / 2
        parts = np.where(e < ramp, 0.01 + 0.99 * e / max(ramp, 1), fall)
        return tuple(float(r) for r in rate * parts)
    ramp, final = min(int(schedule["warmup"]), steps // 2), float(schedule["final"])
    t = np.arange(steps)
    fall = (1 + np.cos(np.pi * (t - ramp) / max(steps - ramp, 1))) / 2
    parts = np.where(t < ramp, t / max(ramp, 1), final + (1 - final) * fall)
    return tuple(float(r) for r in rate * parts)


def cuts(batch: int, parts: int) -> bool:
    """Tell whether a batch has that many equal parts, of two images or more for batch norm."""
    return batch % parts == 0 and (parts == 1 or batch // parts >= 2)


def steps_per_epoch(recipe: Recipe, n: int) -> int:
    """Return how many steps an epoch of ``n`` images has, a short last one included."""
    batch = min(recipe.batch, n)
    rest = n % batch if recipe.order in ("shuffled", "stored") else 0
    return n // batch + bool(rest) if recipe.order != "classwise" else 1


def optimizer_of(recipe: Recipe) -> optimisers.InnerOptimizer:
    """Return a recipe's optimiser."""
    name = recipe.optimizer
    if name == "sgd" and recipe.momentum:
        name = "momentum"
    return optimisers.make(name, recipe.momentum, recipe.weight_decay, recipe.decay)


def classwise_rows(
    key: jax.Array, classes: int, ipc: int, per_class: int, classes_per_step: int = 0
) -> jax.Array:
    """Draw ``per_class`` rows of each of ``classes_per_step`` classes (0: all), class-major.

    Neither a class nor an image is drawn twice; ``[per_class * classes_per_step]``.
    """
    which, within = jax.random.split(key)
    chosen = jax.random.permutation(which, classes)[: classes_per_step or classes]
    order = jnp.argsort(jax.random.uniform(within, (len(chosen), ipc)), axis=1)
    return (chosen[:, None] * ipc + order[:, :per_class]).ravel()


def flat_gradient(
    gradient: Callable[[Tree], Tree], params: Tree, rho: float, alpha: float, first: Tree = None
) -> Tree:
    """Return the direction of one step of adaptive GSAM, which looks for flat minima.

        g = gradient(w),  e = rho w^2 g / ||w g||,  g' = gradient(w + e)
        direction = g' - alpha (g - g' <g, g'> / ||g'||^2)

    Products are elementwise, norms run over all parameters; where a norm is 0 so is its term.

    Args:
      gradient: of one and the same batch each time it is called.
      first: gradient(w), where it is known.

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


class Keys(NamedTuple):
    """Keys of one net: ``own`` for its shuffles and draws, ``ops`` shared by nets trained together.

    The name of the DSA operation is drawn from ``ops``: nets in one vmap then run one operation a
    step instead of all six. Each net's own sequence is distributed as published; parameters,
    shuffles and initial weights stay independent.
    """

    own: jax.Array
    ops: jax.Array


def shuffle(keys: Keys, epoch: Any, n: int) -> jax.Array:
    """Return the order of ``n`` images in an epoch: a permutation ``[n]``."""
    return jax.random.permutation(_draw(keys, epoch), n)


def _draw(keys: Keys, epoch: Any) -> jax.Array:
    return jax.random.fold_in(jax.random.fold_in(keys.own, 0), epoch)


class Fit(NamedTuple):
    """``init(key) -> carry``; ``advance(carry, keys, images, labels, lr, lo, hi) -> carry, loss``.

    Steps ``lo`` to ``hi`` (global numbers, traced: no recompilation) are run; the loss is their
    mean. ``steps_per_epoch`` counts the short last batch. Of a ``fed`` training images and labels
    are those of the steps from ``lo`` on, ``[steps, b, ...]``. ``light``: so little is computed in
    a step that on this kind of device several nets had better go together (``LIGHT``).
    """

    init: Callable[[jax.Array], Tree]
    advance: Callable[..., tuple[Tree, jax.Array]]
    steps_per_epoch: int
    light: bool = False


# Bytes of activations of a step. Nets under vmap have grouped convolutions, which take 2.7 times as
# long on an H100 at 220 MB (ConvNet of width 128, 256 images), and just over half at 9 MB, where
# starting the programs is most of the time; the border is chosen between these. On a CPU a core
# each is the better way.
LIGHT = 32 << 20


def light(net: Net, images: int) -> bool:
    """Tell whether nets had better go together, by what one makes of the images of a step."""
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

    ``over``: devices that share the images of a batch, batch statistics being the whole batch's.

    Raises:
      ValueError: ``fed``, and the recipe's order is not ``shuffled``.
    """
    if fed and recipe.order != "shuffled":
        raise ValueError(f"batches are fed in shuffled order, not {recipe.order}")
    batch = min(recipe.batch, n)
    rest = n % batch if recipe.order == "shuffled" else 0
    per_epoch = steps_per_epoch(recipe, n)
    loss_fn: Callable[[jax.Array, Any], jax.Array]
    loss_fn = losses.squared_error if recipe.loss == "squared_error" else losses.cross_entropy
    if recipe.distillation is not None:
        loss_fn = recipe.distillation.loss
    optimizer = optimizer_of(recipe)

    def init(key: jax.Array) -> Tree:
        variables = net.init(key)
        state = optimizer.init(variables["params"])
        order = {} if fed else {"order": jnp.arange(n)}
        return {"variables": variables, "optimizer": state, **order}

    def augmented(images: jax.Array, keys: Keys, step: jax.Array) -> jax.Array:
        if recipe.strategy in ("", "none"):
            return images
        kind = augment.kind(recipe.augment)
        op = kind.draw_op(jax.random.fold_in(keys.ops, step), recipe.strategy)
        own = jax.random.fold_in(jax.random.fold_in(keys.own, 1), step)
        return kind.apply(
            op, own, images, recipe.strategy, siamese=False, align_corners=recipe.align_corners
        )

    def update(carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree) -> Tree:
        variables = carry["variables"]
        if recipe.distillation is not None:
            x, target = recipe.distillation.view(images, labels, step)
        else:
            target = losses.targets(labels, recipe.label_kind, recipe.classes)
            x = augmented(images, keys, step)

        normed = {name: variables[name] for name in ("batch_stats",) if name in variables}

        def objective(params: Tree, normed: Tree, x: Tree, target: Tree) -> tuple[jax.Array, Tree]:
            x, target = parallel.shared_out((x, target), over)
            out = net.apply({**variables, **normed, "params": params}, x, train=True)
            return loss_fn(out.logits, target), {name: out.stats for name in normed}

        def gradient(params: Tree) -> Tree:
            part = jax.value_and_grad(objective, has_aux=True)
            size = net.part(len(x), bool(normed))
            if recipe.parts > 1:
                size = min(len(x), max(1, batch // recipe.parts))
            if size == len(x):
                return part(params, normed, x, target)

            def add(lo: Any, count: int, sums: Tree, normed: Tree) -> tuple[Tree, Tree]:
                pieces = jax.tree.map(
                    lambda a: jax.lax.dynamic_slice_in_dim(a, lo, count), (x, target)
                )
                (loss, normed), grads = part(params, normed, *pieces)
                own = jax.tree.map(lambda a: a * (count / len(x)), (loss, grads))
                return jax.tree.map(jnp.add, sums, own), normed

            # From zero, not from the first part's: the program of a part is compiled once.
            pieces = jax.tree.map(lambda a: a[:size], (x, target))
            (loss, _), grads = jax.eval_shape(part, params, normed, *pieces)
            zero = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (loss, grads))
            whole = len(x) // size
            total = jax.lax.fori_loop(
                0, whole, lambda i, at: add(i * size, size, *at), (zero, normed)
            )
            if rest := len(x) - whole * size:
                total = add(whole * size, rest, *total)
            (loss, grads), after = total
            return (loss, after), grads

        (loss, after), grads = gradient(variables["params"])
        if recipe.sam_rho:  # loss and batch statistics are those at the weights themselves
            grads = flat_gradient(
                lambda params: gradient(params)[1],
                variables["params"], recipe.sam_rho, recipe.sam_alpha, grads,
            )  # fmt: skip
        params, state = optimizer.update(grads, carry["optimizer"], variables["params"], {"lr": lr})
        for _ in range(recipe.norm_updates - 1):  # at the weights of the step, too
            again = net.apply({**variables, **after}, x, train=True)
            after = {name: again.stats for name in after}
        new = {**variables, **after, "params": params}
        return {**carry, "variables": new, "optimizer": state}, loss

    def one(carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, step: Tree) -> Tree:
        epoch, j = step // per_epoch, step % per_epoch
        lr = lr[step] if recipe.rates else lr
        if recipe.drop_epoch >= 0:
            lr = jnp.where(epoch >= recipe.drop_epoch, lr * recipe.drop_factor, lr)
            fresh = jnp.logical_and(epoch == recipe.drop_epoch, j == 0)
            begun = optimizer.init(carry["variables"]["params"])
            state = jax.tree.map(lambda new, s: jnp.where(fresh, new, s), begun, carry["optimizer"])
            carry = {**carry, "optimizer": state}
        if recipe.order == "classwise":
            draw, ipc = _draw(keys, epoch), n // recipe.classes
            rows = classwise_rows(
                draw, recipe.classes, ipc, recipe.per_class, recipe.classes_per_step
            )
            return update(carry, keys, images[rows], labels[rows], lr, step)
        if fed or recipe.order == "stored":
            return update(carry, keys, images, labels, lr, step)
        if recipe.order == "sequential":
            x, y = (jax.lax.dynamic_slice_in_dim(a, j * batch, batch) for a in (images, labels))
            return update(carry, keys, x, y, lr, step)
        if per_epoch == 1:  # the whole set in one batch: its order says nothing
            return update(carry, keys, images, labels, lr, step)
        order = jax.lax.cond(j == 0, lambda: shuffle(keys, epoch, n), lambda: carry["order"])
        carry = {**carry, "order": order}

        def take(size: int) -> Callable[[], Tree]:
            def run() -> Tree:
                index = jax.lax.dynamic_slice(order, (j * batch,), (size,))
                return update(carry, keys, images[index], labels[index], lr, step)

            return run

        if not rest:
            return take(batch)()
        return jax.lax.cond(j == per_epoch - 1, take(rest), take(batch))

    def advance(
        carry: Tree, keys: Keys, images: Tree, labels: Tree, lr: Tree, lo: Tree, hi: Tree
    ) -> tuple[Tree, jax.Array]:
        def body(step: jax.Array, at: tuple[Tree, jax.Array]) -> tuple[Tree, jax.Array]:
            batch = (images[step - lo], labels[step - lo]) if fed else (images, labels)
            after, loss = one(at[0], keys, *batch, lr, step)
            return after, at[1] + loss

        carry, total = jax.lax.fori_loop(lo, hi, body, (carry, jnp.zeros(())))
        return carry, total / jnp.maximum(hi - lo, 1)

    return Fit(init, advance, per_epoch, light(net, max(1, batch // recipe.parts)))
