"""VL: image-text pairs distilled by matching trajectories of two towers (Wu et al., TMLR 2024).

One outer step, with theta* = (theta*_image, theta*_text) an expert's weights, X the synthetic
images and E the text vectors of N pairs, and b either branch, image or text:

    t ~ U{0 .. T+ - 1},   theta_0 = theta*_t
    theta_{j+1,b} = theta_{j,b} - alpha_b grad_b l(X_{r_j}, E_{r_j}; theta_j),   j < n
    L = sum_b ||theta_{n,b} - theta*_{t+M,b}||^2 / ||theta*_{t,b} - theta*_{t+M,b}||^2
    X, E, alpha <- SGD(m) steps of rates lr_img, lr_txt, lr_lr with dL/dX, dL/dE, dL/dalpha

l is the contrastive loss of the step's pairs, InfoNCE by default; r_j are all pairs, or
``batch_syn`` of them. The gradients are exact, through all n steps (``meta/unroll.py``). Towers
with low-rank adapters (``lora.rank``) are matched in their adapters and heads alone, frozen image
towers (``towers.frozen``) in the last layer and the text tower.

``mix`` > 0: in l each pair's representations, before both towers' projections, are blended with
another pair's by a weight from Beta(mix, mix) drawn in each student step; targets stay (RepBlend,
Zhang et al., 2025).

LoRS is a ``Variation`` of this module.

Differs from the authors' code: l scales similarities by 1 / tau, as experts and evaluation do
(theirs by log(1 / tau); ``tau_inner=raw``); expert and start epoch are drawn independently each
step; both branches of a snapshot are one record; rates are clamped at ``min_lr``; no dropout.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.data.pairs import PairSplit
from jdd.matching import contrastive
from jdd.matching.trajectory import branch_distance
from jdd.meta import unroll
from jdd.methods.base import Method, Problem, State, all_finite, outer_sgd
from jdd.methods.pairs import draw, nearest_captions, pair_recipe
from jdd.nets import Net
from jdd.product.pairs import PairSet, Similarity
from jdd.specs.vl import Config
from jdd.training import optimisers

Tree = Any
BRANCHES = ("image", "text")


class Variation(NamedTuple):
    """Differences of a method from VL; the defaults are VL.

    rank:  r of the learned similarity S = diag(w) + (alpha / r) L R^T; None: S is the identity.
    alpha: its alpha.
    rate:  learning rate of w, L and R.
    """

    rank: int | None = None
    alpha: float = 1.0
    rate: float = 0.0


def batches(draw: np.random.Generator, n: int, batch: int, steps: int) -> np.ndarray:
    """Return the rows of the student's batches, int ``[steps, batch]``.

    A permutation is cut into batches; when fewer rows are left than a batch has, a new one is
    drawn.
    """
    rows: list[np.ndarray] = []
    while len(rows) < steps:
        order = draw.permutation(n)
        rows += [order[i : i + batch] for i in range(0, n - batch + 1, batch)]
    return np.stack(rows[:steps]).astype(np.int32)


def mixes(key: jax.Array, steps: int, n: int, beta: float) -> dict[str, jax.Array]:
    """Return the blends of the student's steps, as ``nets.towers`` takes them.

    Args:
      key: of the step's item.
      n: pairs in a student's batch.
      beta: weights are drawn from Beta(beta, beta).

    Returns:
      "order" int ``[steps, n]``, a permutation a step, and "weight" ``[steps]``.

    Source: RepBlend (Zhang et al., 2025): one weight and one permutation a step for both towers.
    """

    def one(key: jax.Array) -> dict[str, jax.Array]:
        order, weight = jax.random.split(key)
        drawn = jax.random.beta(weight, beta, beta, dtype=jnp.float32)
        return {"order": jax.random.permutation(order, n), "weight": drawn}

    return jax.vmap(one)(jax.random.split(key, steps))


def _loss(net: Net, config: Config) -> Callable[[Tree, Tree, Tree], jax.Array]:
    """Return the inner loss l of an ``unroll.Inner``."""
    tau = config.towers.tau
    # The logits of the towers are cosines over tau.
    scale = tau * math.log(1 / tau) if config.tau_inner == "raw" else 1.0
    of = contrastive.LOSSES[config.loss]

    def loss(theta: Tree, rows: Tree, step: Tree) -> jax.Array:
        inputs = {name: rows[name] for name in BRANCHES}
        if config.mix:
            inputs["mix"] = step[0]["mix"]
        out = net.apply({**step[1], "params": theta}, inputs, train=True)
        logits = out.logits * scale
        return of(logits, rows.get("target", jnp.eye(len(logits), dtype=logits.dtype)))

    return loss


def _objective(problem: Problem, batch: int, vary: Variation) -> Callable[..., Any]:
    config, net = cast(Config, problem.config), problem.nets["student"]
    steps = config.syn_steps

    def rows(learned: Tree, step: Tree) -> Tree:
        if batch:
            learned = jax.tree.map(lambda a: a[step[0]["rows"]], learned)
        found = {"image": learned["images"], "text": learned["text"]}
        if vary.rank is not None:
            s = _whole(learned["similarity"])
            found["target"] = contrastive.similarity(s["w"], s["left"], s["right"], vary.alpha)
        return found

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        start, target = item["start"]["params"], item["target"]["params"]
        learned = {name: value for name, value in variables.items() if name != "lr"}
        rates = {b: jnp.broadcast_to(variables["lr"][b], (steps,)) for b in BRANCHES}
        rest = {kind: tree for kind, tree in item["start"].items() if kind != "params"}
        fixed: dict[str, Any] = {"step": jnp.arange(steps)}
        if batch:
            fixed["rows"] = item["rows"]
        if config.mix:
            fixed["mix"] = mixes(key, steps, batch or config.pairs, config.mix)
        student = unroll.unroll(
            unroll.Inner(_loss(net, config), rows), optimisers.sgd(), start, {"lr": rates},
            learned, fixed, config.unroll, rest, config.estimator, config.window,
        )  # fmt: skip
        loss = branch_distance(student, target, start, config.distance == "merged")
        return loss, ({}, {f"lr_{b}": variables["lr"][b] for b in BRANCHES})

    return objective


def _whole(similarity: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return w, L and R of a similarity; of rank 0 it has w alone, and L and R are [n, 0]."""
    none = jnp.zeros((len(similarity["w"]), 0), similarity["w"].dtype)
    return {"left": none, "right": none} | similarity


def _initial(config: Config, problem: Problem, vary: Variation) -> Callable[[int], State]:
    train = cast(PairSplit, problem.data.train)

    def init(seed: int) -> State:
        chosen = draw(rng.host(seed, "vl/init"), train, config.pairs)
        images = train.images[train.image_of[chosen]]
        variables: dict[str, Any] = {
            "images": jnp.asarray(images, jnp.float32),
            "text": jnp.asarray(train.text[chosen], jnp.float32),
            "lr": {b: jnp.asarray(config.lr_student, jnp.float32) for b in BRANCHES},
        }
        if vary.rank is not None:
            variables["similarity"] = {"w": jnp.ones(config.pairs)}
        if vary.rank:
            left = jax.random.normal(rng.key(seed, "vl/left"), (config.pairs, vary.rank))
            variables["similarity"] |= {"left": left, "right": jnp.zeros_like(left)}
        return State(variables, {})

    return init


def _sampler(config: Config, batch: int) -> Callable[[int, int], dict[str, Any]]:
    k = config.segments

    def sample(seed: int, step: int) -> dict[str, Any]:
        generator = rng.host(seed, "distill/sample", step)
        expert = generator.integers(0, config.experts.count, k)
        epoch = generator.integers(0, config.max_start_epoch, k)
        indices: dict[str, Any] = {
            "snapshots": {
                "start": np.stack([expert, epoch], axis=1),
                "target": np.stack([expert, epoch + config.expert_epochs], axis=1),
            }
        }
        if batch:
            drawn = [batches(generator, config.pairs, batch, config.syn_steps) for _ in range(k)]
            indices["rows"] = np.stack(drawn)
        return indices

    return sample


def make(config: Config, problem: Problem) -> Method:
    """Build VL for a resolved config and its problem."""
    return build(config, problem, Variation())


def build(config: Config, problem: Problem, vary: Variation) -> Method:
    """Build a variation of VL for a resolved config and its problem."""
    batch = config.batch_syn if 0 < config.batch_syn < config.pairs else 0

    def advance(state: State, key: jax.Array) -> State:
        lr = {b: jnp.maximum(rate, config.min_lr) for b, rate in state.variables["lr"].items()}
        return state._replace(variables=state.variables | {"lr": lr})

    def distilled(state: State, steps: int) -> PairSet:
        images, text = (np.asarray(state.variables[name]) for name in ("images", "text"))
        found = pair_recipe(config, problem, steps, loss=config.loss)
        found |= nearest_captions(text, cast(PairSplit, problem.data.train))
        similarity = None
        if vary.rank is not None:
            whole = _whole(state.variables["similarity"])
            s = {name: np.asarray(a) for name, a in whole.items()}
            similarity = Similarity(s["w"], s["left"], s["right"], vary.alpha)
        rates = {b: float(rate) for b, rate in state.variables["lr"].items()}
        transform = problem.data.transform
        return PairSet(images, text, found, transform, rates, similarity)

    rates = {
        name: (rate, config.momentum)
        for name, rate in {
            "images": config.lr_img, "text": config.lr_txt, "lr": config.lr_lr,
            **({} if vary.rank is None else {"similarity": vary.rate}),
        }.items()
    }  # fmt: skip
    return Method(
        init=_initial(config, problem, vary),
        sample=_sampler(config, batch),
        objective=_objective(problem, batch, vary),
        distilled=distilled,
        optimizer=outer_sgd(rates),
        advance=advance,
        valid=lambda state: all_finite(state.variables),
    )
