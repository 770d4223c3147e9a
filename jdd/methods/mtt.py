"""MTT: dataset distillation by matching training trajectories (Cazenavette et al., CVPR 2022).

One outer step, with theta* an expert's weights and S the synthetic images:

    t ~ U{0 .. T+ - 1},   theta_0 = theta*_t
    theta_{j+1} = theta_j - beta grad_theta l(A_j(S_{b_j}), y; theta_j),        j = 0 .. N-1
    L = ||theta_N - theta*_{t+M}||^2 / ||theta*_t - theta*_{t+M}||^2
    S    <- SGD(0.5) step of rate lr_img  with dL/dS
    beta <- SGD(0.5) step of rate lr_lr   with dL/dbeta

l is cross-entropy with fixed hard labels, A_j is DSA with one operation per batch and parameters
per image. By default both gradients are exact, through all N steps (``meta/unroll.py``).

FTD, TESLA and DATM are ``Variation``s of this module; ``config.estimator`` and ``config.unroll``
select the gradient's estimator and how it is computed.

With ``bn.weight`` the loss has a second term, batch-norm statistics of the set:
``methods/norm_transfer.py``.

Differs from the authors' code: expert and start epoch are drawn independently each step (theirs
iterates over a shuffled file of experts); a rate beta <= 0 counts as divergence, with its advice,
instead of failing at evaluation; several segments may be averaged in a step (``segments``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import dsa
from jdd.matching.losses import targets
from jdd.matching.trajectory import trajectory_distance
from jdd.meta import unroll
from jdd.methods import norm_transfer
from jdd.methods.base import (
    Method,
    Problem,
    State,
    all_finite,
    first_images,
    outer_sgd,
    recipe,
    student_loss,
)  # fmt: skip
from jdd.product.distilled_set import DistilledSet
from jdd.specs.mtt import Config
from jdd.training import optimisers

Tree = Any


def chunks(draw: np.random.Generator, n: int, batch: int, steps: int) -> tuple[Any, Any]:
    """Return the student's batches: rows ``[steps, batch]`` and weights, 0 for padding.

    A permutation is cut into chunks, which are used from its end, the short one first; then a new
    one is drawn.
    """
    rows, weights = [], []
    waiting: list[np.ndarray] = []
    for _ in range(steps):
        if not waiting:
            order = draw.permutation(n)
            waiting = [order[i : i + batch] for i in range(0, n, batch)]
        chunk = waiting.pop()
        short = batch - len(chunk)
        rows.append(np.concatenate([chunk, np.zeros(short, chunk.dtype)]))
        weights.append(np.concatenate([np.ones(len(chunk)), np.zeros(short)]))
    return np.stack(rows).astype(np.int32), np.stack(weights).astype(np.float32)


class Variation(NamedTuple):
    """Differences of a trajectory-matching method from MTT; the defaults are MTT.

    start:       ``(seed) -> (images, labels)`` of step 0; None: by ``pix_init``, hard labels.
    label_kind:  kind of the labels of ``start`` and of the saved set.
    label_rate:  rate and momentum of the labels' SGD; None for fixed labels.
    teacher:     the labels of a step are softmax(f(S; theta*_{t+M})), without a gradient.
    epochs:      ``(step) -> (low, high)``: start epochs are drawn from low .. high - 1.
    most:        a step whose loss is above this is skipped.
    ema:         decay of the average of the images that is saved; 0 saves the last ones.
    """

    start: Callable[[int], tuple[np.ndarray, np.ndarray]] | None = None
    label_kind: str = "hard"
    label_rate: tuple[float, float] | None = None
    teacher: bool = False
    epochs: Callable[[int], tuple[int, int]] | None = None
    most: float | None = None
    ema: float = 0.0


def _objective(problem: Problem, labels: np.ndarray, batch: int, vary: Variation) -> Any:
    config, net, data = cast(Config, problem.config), problem.nets["student"], problem.data
    steps = config.syn_steps

    def rows(moved: Tree, step: Tree) -> Tree:
        fixed, frozen = step
        images, target = moved["images"], (moved | frozen)["target"]
        weight = jnp.ones(len(images), images.dtype)
        if batch:
            images, target = images[fixed["rows"]], target[fixed["rows"]]
            weight = fixed["weight"].astype(images.dtype)
        images = dsa.augment(fixed["drawn"], images, data.dsa, config.align_corners)
        return {"images": images, "target": target, "weight": weight / jnp.sum(weight)}

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        moved: dict[str, Any] = {"images": variables["images"]}
        new: dict[str, Any] = {}
        frozen: dict[str, Any] = {
            "rest": {k: v for k, v in item["start"].items() if k != "params"},
        }
        if vary.label_rate is not None:
            moved["target"] = targets(variables["labels"], vary.label_kind, data.classes)
        elif vary.teacher:
            logits = net.apply(item["target"], variables["images"], train=False).logits
            frozen["target"] = jax.lax.stop_gradient(jax.nn.softmax(logits))
            new = {"labels": frozen["target"]}
        else:
            frozen["target"] = targets(jnp.asarray(labels), vary.label_kind, data.classes)
        keys, size = jax.random.split(key, steps), batch or len(labels)
        fixed: dict[str, Any] = {"drawn": jax.vmap(lambda k: dsa.draw(k, size, data.dsa))(keys)}
        if batch:
            fixed |= {"rows": item["rows"], "weight": item["weight"]}
        rates = {"lr": jnp.broadcast_to(variables["lr"], (steps,))}
        start, target = item["start"]["params"], item["target"]["params"]
        part = net.part(size, "batch_stats" in item["start"])
        inner = unroll.Inner(student_loss(net), rows, part)
        student = unroll.unroll(
            inner, optimisers.sgd(), start, rates, moved, fixed,
            config.unroll, frozen, config.estimator, config.window,
        )  # fmt: skip
        return trajectory_distance(student, target, start), (new, {"lr": variables["lr"]})

    return objective


def _initial(
    config: Config, problem: Problem, hard: np.ndarray, vary: Variation
) -> Callable[[int], State]:
    """Return ``Method.init``; ``hard``: the class of each image."""

    def init(seed: int) -> State:
        given = (
            vary.start(seed)
            if vary.start
            else (first_images(problem, config.pix_init, seed, "mtt/init"), hard)
        )
        images, labels = (jnp.asarray(x, jnp.float32) for x in given)
        lr = jnp.asarray(config.lr_student, jnp.float32)
        variables, aux = {"images": images, "lr": lr}, dict[str, jax.Array]()
        if vary.label_rate is not None:
            variables["labels"] = labels
        if vary.teacher:
            aux["labels"] = jax.nn.one_hot(hard, problem.data.classes)
        if vary.ema:
            aux["images"] = images
        return State(variables, aux)

    return init


def _sampler(config: Config, n: int, batch: int, vary: Variation) -> Callable[..., dict[str, Any]]:
    """Return ``Method.sample`` of a set of ``n`` images; ``batch`` 0: a step has all of them."""
    k = config.segments

    def sample(seed: int, step: int) -> dict[str, Any]:
        draw = rng.host(seed, "distill/sample", step)
        low, high = vary.epochs(step) if vary.epochs else (0, config.max_start_epoch)
        expert = draw.integers(0, config.experts.count, k)
        epoch = draw.integers(low, high, k)
        start = np.stack([expert, epoch], axis=1)
        target = np.stack([expert, epoch + config.expert_epochs], axis=1)
        indices: dict[str, Any] = {"snapshots": {"start": start, "target": target}}
        if batch:
            drawn = [chunks(draw, n, batch, config.syn_steps) for _ in range(k)]
            indices["rows"] = np.stack([rows for rows, _ in drawn])
            indices["weight"] = np.stack([weight for _, weight in drawn])
        return indices

    return sample


def make(config: Config, problem: Problem) -> Method:
    """Build MTT for a resolved config and its problem."""
    return build(config, problem, Variation())


def build(config: Config, problem: Problem, vary: Variation) -> Method:
    """Build a variation of MTT for a resolved config and its problem."""
    data = problem.data
    ipc, classes = config.ipc, data.classes
    n = ipc * classes
    batch = config.batch_syn if 0 < config.batch_syn < n else 0
    hard = np.repeat(np.arange(classes, dtype=np.int32), ipc)
    learned = vary.label_rate is not None

    def advance(state: State, key: jax.Array) -> State:
        if not vary.ema:
            return state
        mean = vary.ema * state.aux["images"] + (1 - vary.ema) * state.variables["images"]
        return state._replace(aux=state.aux | {"images": mean})

    def distilled(state: State, steps: int) -> DistilledSet:
        lr = float(state.variables["lr"])
        labels: Any = hard
        if learned or vary.teacher:
            labels = (state.variables if learned else state.aux)["labels"]
        return DistilledSet(
            images=np.asarray((state.aux if vary.ema else state.variables)["images"]),
            labels=np.asarray(labels),
            label_kind="probabilities" if vary.teacher else vary.label_kind,
            lr=lr,
            recipe=recipe(problem, steps, lr=lr),
            transform=data.transform,
        )

    rates = {
        "images": (config.lr_img, config.img_momentum),
        "lr": (config.lr_lr, config.lr_momentum),
    }
    if vary.label_rate is not None:
        rates["labels"] = vary.label_rate
    most = vary.most
    gate: dict[str, Any] = {} if most is None else {"accept": lambda loss: loss <= most}
    method = Method(
        init=_initial(config, problem, hard, vary),
        sample=_sampler(config, n, batch, vary),
        objective=_objective(problem, hard, batch, vary),
        distilled=distilled,
        optimizer=outer_sgd(rates),
        advance=advance,
        valid=lambda s: jnp.logical_and(all_finite(s.variables), s.variables["lr"] > 0),
        **gate,
    )
    return norm_transfer.added(method, config, problem, hard)
