"""RaT-BPTT: meta-gradients through a random window of training (Feng, Vedantam & Kempe, ICLR 2024).

One outer step, with S, y the synthetic images and labels, T steps in the unroll, W in the window:

    theta_0 ~ the net's initialisation,   s ~ U{0 .. T - W}
    theta_{j+1} = Adam(theta_j, grad_theta l(A_j(S_{b_j}), y_{b_j}; theta_j)),   j = 0 .. s + W - 1
    L = l(A(X), Y; theta_{s+W}),                                                 X, Y a real batch
    S <- Adam step with clip(dL/dS),   y <- max(0, Adam step with dL/dy)

The gradient passes through the last W steps only, Adam's moments included; theta_s and the moments
there are constants. Steps after the window do not run. l is cross-entropy, A one augmentation per
batch with parameters per image. With g = dL/dS over all images,

    m <- 0.9 m + 0.1 |g|,   clip(g) = g min(1, 2 m / |g|),       m starts as the first |g|

s is drawn once per epoch of the real images, as in the authors' commands; ``window_draw=step``
draws it at every step, ``window_draw=end`` fixes it at T - W. ``window_policy`` replaces this draw:
``whole`` is the window of all T steps, ``at`` chooses start and size (``methods/windows.py``).

Differs from the authors' code: several (theta_0, s), each with a real batch of its own, may be
averaged in a step (``inits``); in the window eps is added to Adam's corrected root, guarded at 0,
where their library (higher 0.2.1) adds it to the uncorrected one and stops the gradient at 0. m
starts as theirs does.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.augment import dsa
from jdd.errors import BadInput
from jdd.matching.losses import cross_entropy, targets
from jdd.meta import unroll
from jdd.methods import initial_set, windows
from jdd.methods.base import (
    Method,
    Problem,
    State,
    real_images,
    recipe,
    shuffled,
    student_loss,
)
from jdd.product.distilled_set import DistilledSet
from jdd.specs.ratbptt import Config
from jdd.training import optimisers, orders

Tree = Any


class ClipState(NamedTuple):
    """The running mean of the gradient's norm, negative before the first gradient."""

    norm: jax.Array


def clip_by_mean_norm(factor: float, decay: float) -> optax.GradientTransformation:
    """Return the clipping of a gradient at ``factor`` times the running mean of its norm.

    m <- decay m + (1 - decay) |g| with the current norm first, then |g| <= factor m; m starts as
    the first norm. ``factor`` 0 disables clipping.
    """

    def init(params: Tree) -> ClipState:
        return ClipState(jnp.full((), -1.0, jnp.float32))

    def update(grads: Tree, state: ClipState, params: Tree = None) -> tuple[Tree, ClipState]:
        norm = optax.global_norm(grads)
        mean = jnp.where(state.norm < 0, norm, decay * state.norm + (1 - decay) * norm)
        most = factor * mean
        shrink = jnp.where(norm > most, most / jnp.maximum(norm, 1e-30), 1.0) if factor else 1.0
        return jax.tree.map(lambda g: g * shrink, grads), ClipState(jnp.asarray(mean, jnp.float32))

    return optax.GradientTransformation(init, update)


def class_rows(
    draw: np.random.Generator, shape: tuple[int, ...], classes: int, ipc: int, some: int, each: int
) -> np.ndarray:
    """Return the rows ``[*shape, some * each]`` of batches of a class-major set, drawn afresh.

    Every batch holds ``each`` different images of ``some`` different classes.
    """
    which = draw.random((*shape, classes)).argsort(-1)[..., :some]
    image = draw.random((*shape, some, ipc)).argsort(-1)[..., :each]
    return (which[..., None] * ipc + image).reshape(*shape, some * each).astype(np.int32)


def first_images(config: Config, problem: Problem, seed: int) -> np.ndarray:
    """Return the images of step 0: N(0, 1) scaled to unit L2 norm each, real ones, or a set's."""
    data, ipc = problem.data, config.ipc
    if (found := initial_set.read(config, data)) is not None:
        return found
    if config.pix_init == "real":
        return real_images(problem, ipc, seed, "ratbptt/init")
    noise = jax.random.normal(rng.key(seed, "ratbptt/init"), (ipc * data.classes, *data.shape))
    norms = jnp.sqrt(jnp.sum(jnp.square(noise), axis=(1, 2, 3), keepdims=True))
    return np.asarray(noise / norms)


def window_start(config: Config, seed: int, step: int, epoch: int, item: int) -> int:
    """Return s, the first step of an item's window, 0 .. T - W."""
    last = config.unroll_steps - windows.longest(config)
    if config.window_draw == "end" or not last:
        return last
    at = step if config.window_draw == "step" else epoch
    return int(rng.host(seed, f"ratbptt/window/{item}", at).integers(0, last + 1))


def _shown(problem: Problem, whole: bool) -> Callable[[Tree, Tree], Tree]:
    """Return the rows of an inner step, of ``unroll.Inner``: images, augmented, and targets."""
    config, data = cast(Config, problem.config), problem.data

    def rows(moved: Tree, step: Tree) -> Tree:
        fixed, frozen = step
        images, target = moved["images"], (moved | frozen)["target"]
        if not whole:
            images, target = images[fixed["rows"]], target[fixed["rows"]]
        images = dsa.augment(fixed["drawn"], images, data.dsa, config.align_corners)
        weight = jnp.full(len(images), 1 / len(images), images.dtype)
        return {"images": images, "target": target, "weight": weight}

    return rows


def _material(
    problem: Problem, hard: np.ndarray, variables: Tree, fresh: Tree
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what inner steps are trained on: what is learned, and what is constant."""
    moved: dict[str, Any] = {"images": variables["images"]}
    frozen: dict[str, Any] = {}
    if cast(Config, problem.config).learn_labels:
        moved["target"] = variables["labels"]
    else:
        frozen["target"] = targets(jnp.asarray(hard), "hard", problem.data.classes)
    frozen["rest"] = {k: v for k, v in fresh.items() if k != "params"}
    return moved, frozen


def _objective(problem: Problem, hard: np.ndarray, whole: bool, size: int) -> Any:
    config, net, data = cast(Config, problem.config), problem.nets["student"], problem.data
    steps, adaptive = config.unroll_steps, config.window_policy == "at"
    inner_optimizer = optimisers.make(config.inner, config.inner_momentum, config.inner_decay)
    rows, longest = _shown(problem, whole), windows.longest(config)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        init_key, inner_key, real_key = jax.random.split(key, 3)
        dtype = variables["images"].dtype
        fresh = jax.tree.map(lambda x: x.astype(dtype), net.init(init_key))
        moved, frozen = _material(problem, hard, variables, fresh)
        keys = jax.random.split(inner_key, steps)
        fixed: dict[str, Any] = {"drawn": jax.vmap(lambda k: dsa.draw(k, size, data.dsa))(keys)}
        if not whole:
            fixed["rows"] = item["rows"]
        rates = {"lr": jnp.full((steps,), config.lr_student, dtype)}
        part = net.part(size, "batch_stats" in fresh)
        start, length = windows.of_item(aux, item) if adaptive else (item["start"], None)
        student = unroll.unroll(
            unroll.Inner(student_loss(net), rows, part), inner_optimizer,
            fresh["params"], rates, moved, fixed,
            config.unroll, frozen, "truncated", longest, start, length,
        )  # fmt: skip
        real = dsa.dsa(
            real_key, item["real"]["images"], data.dsa, align_corners=config.align_corners
        )
        out = net.apply({**frozen["rest"], "params": student}, real, train=True)
        target = targets(item["real"]["labels"], "hard", data.classes)
        right = jnp.argmax(out.logits, axis=-1) == item["real"]["labels"]
        metrics = {"real_accuracy": jnp.mean(right.astype(dtype))}
        new = {}
        if adaptive:
            new = {"accuracy": metrics["real_accuracy"]}
            metrics |= windows.metrics(aux, start, length)
        return cross_entropy(out.logits, target), (new, metrics)

    return objective


def _gradient_norms(
    problem: Problem, hard: np.ndarray, some: int, each: int
) -> Callable[[jax.Array, Tree], jax.Array]:
    """Return ``(key, variables) -> [T]``, the length of every gradient of one plain training.

    A fresh net is trained T steps on the set as inside the objective, without a meta-gradient.
    """
    config, net, data = cast(Config, problem.config), problem.nets["student"], problem.data
    optimizer = optimisers.make(config.inner, config.inner_momentum, config.inner_decay)
    whole, loss = (some, each) == (data.classes, config.ipc), student_loss(net)
    rows = _shown(problem, whole)

    def norms(key: jax.Array, variables: Tree) -> jax.Array:
        init_key, inner_key, row_key = jax.random.split(key, 3)
        fresh = net.init(init_key)
        moved, frozen = _material(problem, hard, variables, fresh)
        keys = jax.random.split(inner_key, config.unroll_steps)
        fixed: dict[str, Any] = {
            "drawn": jax.vmap(lambda k: dsa.draw(k, some * each, data.dsa))(keys)
        }
        if not whole:
            draws = jax.random.split(row_key, config.unroll_steps)
            draw = partial(orders.classwise_rows, classes=data.classes, ipc=config.ipc)
            fixed["rows"] = jax.vmap(lambda k: draw(k, per_class=each, classes_per_step=some))(
                draws
            )

        def step(carry: Tree, fixed_j: Tree) -> tuple[Tree, jax.Array]:
            theta, state = carry
            given = (fixed_j, frozen)
            g = jax.grad(loss)(theta, rows(moved, given), given)
            rate = {"lr": jnp.asarray(config.lr_student, jnp.float32)}
            return optimizer.update(g, state, theta, rate), optax.global_norm(g)

        theta = fresh["params"]
        found: jax.Array = jax.lax.scan(step, (theta, optimizer.init(theta)), fixed)[1]
        return found

    return norms


def _sizes(config: Config, classes: int) -> tuple[int, int]:
    """Return the classes per batch and the images of each, with 0 (all) resolved."""
    ipc = config.ipc
    some, each = config.classes_per_step or classes, config.per_class or ipc
    if some > classes:
        raise BadInput("config.classes_per_step", str(some), f"1 to {classes}, or 0 for all")
    if each > ipc:
        raise BadInput("config.per_class", str(each), f"1 to {ipc} (ipc), or 0 for all")
    return some, each


def _policy(problem: Problem, hard: np.ndarray, some: int, each: int) -> windows.Policy:
    """Return the state of the config's window policy; none but for ``at``."""
    config, n = cast(Config, problem.config), len(problem.data.train.labels)
    if config.window_policy != "at":
        return windows.NONE
    passes = windows.Passes(config.inits, n // min(config.batch_real, n))
    return windows.adaptive(config, passes, _gradient_norms(problem, hard, some, each))


def training(config: Config, classes: int) -> dict[str, Any]:
    """Return T steps of the inner loop as a recipe's section ``train``."""
    some, each = _sizes(config, classes)
    whole = (some, each) == (classes, config.ipc)
    return {
        "optimizer": "adam" if config.inner == "adam" else "sgd",
        "lr": config.lr_student,
        "momentum": config.inner_momentum if config.inner == "momentum" else 0.0,
        "weight_decay": config.inner_decay,
        "batch": some * each,
        "order": "shuffled" if whole else "classwise",
        "per_class": each,
        "classes_per_step": some,
        "steps": config.unroll_steps,
        "drop": None,
    }


def make(config: Config, problem: Problem) -> Method:
    """Build RaT-BPTT for a resolved config and its problem.

    Raises:
      BadInput: a step has more classes or images than the set.
    """
    data = problem.data
    ipc, classes, k = config.ipc, data.classes, config.inits
    steps, learned = config.unroll_steps, config.learn_labels
    some, each = _sizes(config, classes)
    whole = (some, each) == (classes, ipc)
    hard = np.repeat(np.arange(classes, dtype=np.int32), ipc)

    policy = _policy(problem, hard, some, each)

    def init(seed: int) -> State:
        images = jnp.asarray(first_images(config, problem, seed), jnp.float32)
        variables = {"images": images, **_first_labels()}
        return State(variables, policy.begin(seed, variables))

    def _first_labels() -> dict[str, jax.Array]:
        return {"labels": jax.nn.one_hot(hard, classes)} if learned else {}

    def sample(seed: int, step: int) -> dict[str, Any]:
        n, batch = len(data.train.labels), config.batch_real
        at = [shuffled(seed, "ratbptt/real", step * k + i, n, batch) for i in range(k)]
        indices: dict[str, Any] = {"real": np.stack([rows for rows, _ in at])}
        if config.window_policy == "at":
            indices["place"] = np.arange(k, dtype=np.int32)
        else:
            starts = [window_start(config, seed, step, at[i][1], i) for i in range(k)]
            indices["start"] = np.asarray(starts, np.int32)
        if not whole:
            draw = rng.host(seed, "distill/sample", step)
            indices["rows"] = class_rows(draw, (k, steps), classes, ipc, some, each)
        return indices

    def advance(state: State, key: jax.Array) -> State:
        variables = state.variables
        if learned:
            variables = variables | {"labels": jnp.maximum(variables["labels"], 0.0)}
        return State(variables, policy.after(key, variables, state.aux))

    def distilled(state: State, done: int) -> DistilledSet:
        return DistilledSet(
            images=np.asarray(state.variables["images"]),
            labels=np.asarray(state.variables["labels"]) if learned else hard,
            label_kind="probabilities" if learned else "hard",
            lr=None,
            recipe=recipe(problem, done, **training(config, classes)),
            transform=data.transform,
        )

    clip = clip_by_mean_norm(config.clip, 0.9)
    parts = {"images": optax.chain(clip, optax.adam(config.lr_img))}
    if learned:
        parts["labels"] = optax.adam(config.lr_img)
    return Method(
        init=init,
        sample=sample,
        objective=_objective(problem, hard, whole, some * each),
        distilled=distilled,
        optimizer=optax.multi_transform(parts, {name: name for name in parts}),
        advance=advance,
    )
