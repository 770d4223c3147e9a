"""RDED: images put together from the crops that a teacher finds most real (Sun et al., CVPR 2024).

No image is optimised. Of each class up to ``candidates`` real images are drawn, and ``crops``
random crops of each; of these the one that the squeezed net has the lowest cross entropy on stands
for its image. The ipc * factor^2 best fill ipc images, factor by factor crops each, the best one of
an image in its first cell. With factor 1 (CIFAR, Tiny-ImageNet) a crop is an image.

Differs from the authors' code: a crop becomes the cell's size by averaging the pixels of a crop at
full size; the evaluation's last iterate counts, not the best of its last fifth.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.augment import views
from jdd.data.quantise import quantised
from jdd.data.sampler import class_indices
from jdd.distilled import DistilledSet
from jdd.methods import decoupled
from jdd.methods.base import Method, Problem, State

Tree = Any
BATCH = 200  # crops that a teacher looks at together


def make(config: Any, problem: Problem) -> Method:
    """Build RDED for ``problem``: a method without steps."""
    data, factor, ipc = problem.data, int(config.factor), int(config.ipc)
    groups = class_indices(data.train.labels, data.classes)

    def init(seed: int) -> State:
        teacher = problem.teachers[0]
        variables = jax.tree.map(jnp.asarray, teacher.variables())
        judge = _judge(teacher.still, factor)
        found = [
            _of_class(problem, judge, variables, seed, c, rows) for c, rows in enumerate(groups)
        ]
        images = np.concatenate([tiles(cells, ipc, factor) for cells in found])
        return State({"images": jnp.asarray(images)}, {"rows": jnp.zeros((), jnp.int32)})

    def sample(seed: int, step: int) -> dict[str, Any]:
        raise ValueError("images that are put together have no steps")

    def distilled(state: State, steps: int) -> DistilledSet:
        images = quantised(
            np.asarray(state.variables["images"]), data.transform, str(config.quantise)
        )
        return decoupled.dataset(problem, images, steps)

    return Method(init, sample, None, distilled, optax.identity())


def _judge(net: Any, factor: int) -> Any:
    """Return the compiled ``f(variables, images, view, label) -> (cells, cross entropies)``."""

    @jax.jit
    def judge(variables: Tree, images: jax.Array, view: views.View, label: jax.Array) -> Tree:
        cells = shrunk(views.apply(images, view), factor)
        h, w = images.shape[1:3]
        sides = ((0, 0), (0, h - cells.shape[1]), (0, w - cells.shape[2]), (0, 0))
        logits = net.apply(variables, jnp.pad(cells, sides), train=False).logits
        return cells, -jax.nn.log_softmax(logits)[:, label]

    return judge


def shrunk(images: jax.Array, factor: int) -> jax.Array:
    """Return the means over factor x factor pixels, ``[n, h // factor, w // factor, c]``."""
    n, h, w, c = images.shape
    cut = images[:, : h // factor * factor, : w // factor * factor]
    return cut.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))


def _of_class(
    problem: Problem, judge: Any, variables: Tree, seed: int, label: int, rows: np.ndarray
) -> np.ndarray:
    """Return a class's best crops, best first: ``[ipc factor^2, h / factor, w / factor, c]``."""
    config, train = problem.config, problem.data.train
    crops, wanted = int(config.crops), int(config.ipc) * int(config.factor) ** 2
    drawn = rng.host(seed, "rded/images", label).permutation(rows)
    drawn = drawn[: max(int(config.candidates), wanted)]
    if len(drawn) < wanted:  # a small class: its images come again, with other crops
        drawn = np.resize(drawn, wanted)
    every = np.repeat(drawn, crops)
    cells, scores = [], []
    spec = views.Spec(
        crop="resized", scale=(float(config.min_scale), 1.0), ratio=(1.0, 1.0), flip=0.0
    )
    size = min(BATCH, len(every))
    for i, lo in enumerate(range(0, len(every), size)):
        index = np.resize(every[lo : lo + size], size)
        key = jax.random.fold_in(rng.key(seed, "rded/crops", label), i)
        view = views.draw(key, size, train.images.shape[1:3], spec)
        cell, score = judge(variables, train.images[index], view, label)
        cells.append(np.asarray(cell))
        scores.append(np.asarray(score))
    found = np.concatenate(scores)[: len(every)].reshape(len(drawn), crops)
    kept = np.concatenate(cells)[: len(every)].reshape(len(drawn), crops, *cells[0].shape[1:])
    best = found.argmin(1)
    order = np.argsort(found.min(1), kind="stable")[:wanted]
    return kept[order, best[order]]


def tiles(cells: np.ndarray, ipc: int, factor: int) -> np.ndarray:
    """Put ``ipc factor^2`` cells, the best first, into ``ipc`` images.

    Cell k of image i is crop k ipc + i, k counting row by row.
    """
    n, h, w, c = cells.shape
    grid = cells.reshape(factor, factor, ipc, h, w, c).transpose(2, 0, 3, 1, 4, 5)
    return grid.reshape(ipc, factor * h, factor * w, c)
