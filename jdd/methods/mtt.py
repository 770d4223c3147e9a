"""MTT: dataset distillation by matching training trajectories (Cazenavette et al., CVPR 2022).

One outer step, with theta* an expert's weights and S the synthetic images:

    t ~ U{0 .. T+ - 1},   theta_0 = theta*_t
    theta_{j+1} = theta_j - beta grad_theta l(A_j(S_{b_j}), y; theta_j),        j = 0 .. N-1
    L = ||theta_N - theta*_{t+M}||^2 / ||theta*_t - theta*_{t+M}||^2
    S    <- SGD(0.5) step of rate lr_img  with dL/dS
    beta <- SGD(0.5) step of rate lr_lr   with dL/dbeta

l is cross-entropy with fixed hard labels, A_j is DSA with one operation a batch and parameters of
each image's own. Both gradients are exact, through all N steps (``inner/unroll.py``).

Differs from the authors' code: expert and start epoch are drawn independently each step (theirs
goes through a shuffled file of experts); a rate beta <= 0 counts as divergence, with its advice,
instead of a failure at evaluation; several segments may be averaged in a step (``segments``).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import dsa
from jdd.data import draw_per_class
from jdd.distilled import DistilledSet
from jdd.inner import optim, unroll
from jdd.matching.losses import cross_entropy
from jdd.matching.trajectory import trajectory_distance
from jdd.methods.base import Method, Problem, State, all_finite, outer_sgd, recipe

Tree = Any


def chunks(draw: np.random.Generator, n: int, batch: int, steps: int) -> tuple[Any, Any]:
    """Return the student's batches: rows ``[steps, batch]`` and weights, 0 where a chunk is short.

    A permutation is cut into chunks that are used from its end, the short one first; when it is
    used up a new one is drawn.
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


def _objective(problem: Problem, labels: np.ndarray, batch: int) -> Any:
    config, net, data = problem.config, problem.nets["student"], problem.data
    steps = int(config.syn_steps)
    onehot = jax.nn.one_hot(labels, data.classes)

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> tuple[Any, Any]:
        rest = {k: v for k, v in item["start"].items() if k != "params"}

        def inner(theta: Tree, images: jax.Array, step: Tree) -> jax.Array:
            (fixed, rest), target, weight = step, onehot, None
            if batch:
                images, target = images[fixed["rows"]], target[fixed["rows"]]
                weight = fixed["weight"]
            images = dsa.dsa(fixed["key"], images, data.dsa, align_corners=config.align_corners)
            out = net.apply({**rest, "params": theta}, images, train=True)
            return cross_entropy(out.logits, target, weight)

        fixed: dict[str, Any] = {"key": jax.random.split(key, steps)}
        if batch:
            fixed |= {"rows": item["rows"], "weight": item["weight"]}
        rates = {"lr": jnp.broadcast_to(variables["lr"], (steps,))}
        start, target = item["start"]["params"], item["target"]["params"]
        moved, sgd = variables["images"], optim.sgd()
        student = unroll.unroll(inner, sgd, start, rates, moved, fixed, config.unroll, rest)
        return trajectory_distance(student, target, start), (aux, {"lr": variables["lr"]})

    return objective


def make(config: Any, problem: Problem) -> Method:
    """Build MTT for a resolved config and its problem."""
    data = problem.data
    ipc, classes = int(config.ipc), data.classes
    n, k = ipc * classes, int(config.segments)
    batch = int(config.batch_syn) if 0 < int(config.batch_syn) < n else 0
    labels = np.repeat(np.arange(classes, dtype=np.int32), ipc)

    def init(seed: int) -> State:
        if config.pix_init == "real":
            draw = rng.host(seed, "mtt/init")
            images = data.train.images[draw_per_class(draw, data.train.labels, classes, ipc)]
        else:
            images = jax.random.normal(rng.key(seed, "mtt/init"), (n, *data.shape))
        lr = jnp.asarray(config.lr_student, jnp.float32)
        return State({"images": jnp.asarray(images, jnp.float32), "lr": lr}, {})

    def sample(draw: np.random.Generator, step: int) -> dict[str, Any]:
        expert = draw.integers(0, int(config.experts.count), k)
        epoch = draw.integers(0, int(config.max_start_epoch), k)
        start = np.stack([expert, epoch], axis=1)
        target = np.stack([expert, epoch + int(config.expert_epochs)], axis=1)
        indices: dict[str, Any] = {"snapshots": {"start": start, "target": target}}
        if batch:
            drawn = [chunks(draw, n, batch, int(config.syn_steps)) for _ in range(k)]
            indices["rows"] = np.stack([rows for rows, _ in drawn])
            indices["weight"] = np.stack([weight for _, weight in drawn])
        return indices

    def distilled(state: State, steps: int) -> DistilledSet:
        lr = float(state.variables["lr"])
        return DistilledSet(
            images=np.asarray(state.variables["images"]),
            labels=labels,
            label_kind="hard",
            lr=lr,
            recipe=recipe(problem, steps, lr=lr),
            transform=data.transform,
        )

    return Method(
        init=init,
        sample=sample,
        objective=_objective(problem, labels, batch),
        distilled=distilled,
        optimizer=outer_sgd(
            {
                "images": (float(config.lr_img), float(config.img_momentum)),
                "lr": (float(config.lr_lr), float(config.lr_momentum)),
            }
        ),
        valid=lambda s: jnp.logical_and(all_finite(s.variables), s.variables["lr"] > 0),
    )
