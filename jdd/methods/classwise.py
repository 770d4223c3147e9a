"""Matching per class, shared by DC, DSA and DM.

Classes are processed in groups of ``classes_at_once``, each in one ``vmap``, which bounds the
memory; a group is an item of the step, and groups are distributed over devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jdd import rng
from jdd.augment import dsa
from jdd.data import class_indices
from jdd.methods.base import Problem
from jdd.nets import Net
from jdd.parallel import memory, pick, threads
from jdd.schema.families import ClassMatched

Tree = Any
STORED = 8  # memory of a gradient, in multiples of an image and its taps of a forward pass
MOST = 32  # classes at once, unless configured


def groups(at_once: int, classes: int, devices: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes ``[items, k]`` of a step's items, and weights, 0 for padding.

    Args:
      at_once: the largest number of classes per item; items have one size, and each of ``devices``
        gets equally many, if there are enough classes.
      classes: the number of classes.
      devices: the number of devices.
    """
    rounds = -(-classes // (max(1, at_once) * devices))
    k = -(-classes // min(classes, rounds * devices))
    items = -(-classes // k)
    flat = np.arange(items * k)
    weight = (flat < classes).astype(np.float32)
    return np.minimum(flat, classes - 1).reshape(items, k), weight.reshape(items, k)


def fitting(net: Net, images: int, room: int) -> int:
    """Return how many classes of ``images`` images each to process at once.

    One on a CPU, so that the caches hold a step's data; elsewhere as many as fit into ``room``
    bytes by a conservative estimate, from 1 to ``MOST``.
    """
    if jax.default_backend() == "cpu":
        return 1
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    an_image = 4 * math.prod(net.shape) + net.activations(1)
    return max(1, min(MOST, room // (STORED * images * an_image + 4 * weights)))


def real_rows(
    draw: np.random.Generator, by_class: list[np.ndarray], batch: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``batch`` different images of every class: rows ``[classes, b]``, weights summing to 1.

    Classes with fewer images give all of theirs, padded with repeats of weight 0; b is the largest
    number drawn.
    """
    width = widest(by_class, batch)
    rows, weight = zip(*(padded_rows(draw, own, width) for own in by_class), strict=True)
    return np.stack(rows), np.stack(weight)


def widest(by_class: list[np.ndarray], batch: int) -> int:
    """Return the largest number of different images, ``batch`` at most, that a class gives."""
    return min(batch, max(len(rows) for rows in by_class))


def padded_rows(
    draw: np.random.Generator, own: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw ``width`` different rows of ``own``, ``[width]``, with weights that sum to 1.

    If there are fewer, all of them are drawn, padded with repeats of weight 0.
    """
    taken, weight = draw.permutation(own)[:width], np.zeros(width, np.float32)
    weight[: len(taken)] = 1 / len(taken)
    return np.resize(taken, width).astype(np.int32), weight


class Classwise:
    """Rows, items and augmentation of a problem that is matched per class.

    ``whole``: all classes in one item.
    """

    def __init__(
        self, config: ClassMatched, problem: Problem, augmented: bool, whole: bool = False
    ):
        data = problem.data
        self.config = config
        self.net: Net = problem.nets["student"]
        self.ipc, self.classes = config.ipc, data.classes
        self.labels = np.repeat(np.arange(self.classes, dtype=np.int32), self.ipc)
        images = max(config.batch_real, self.ipc)
        at_once = self.classes if whole else config.classes_at_once
        devices = pick(config.devices)
        if at_once:
            self.groups, self.group_weight = groups(at_once, self.classes)
        else:
            k = fitting(self.net, images, memory(devices) // 2)
            count = problem.sharing or len(devices)
            self.groups, self.group_weight = groups(k, self.classes, count)
        self.by_class = class_indices(data.train.labels, self.classes)
        self.strategy = data.dsa if augmented else ""

    def sample(self, seed: int, step: int, purpose: str) -> dict[str, Any]:
        """Return a step's indices: per item its classes, their real rows, weights and seeds."""
        draw = rng.host(seed, f"{purpose}/sample", step)
        rows, weight = real_rows(draw, self.by_class, self.config.batch_real)
        return {
            "real": rows[self.groups],
            "real_weight": weight[self.groups],
            "classes": self.groups.astype(np.int32),
            "weight": self.group_weight,
            # Seeds per class, not keys of the item: draws do not depend on the grouping.
            "seed": draw.integers(0, 2**31, self.classes, np.int32)[self.groups],
        }

    def item(self, images: jax.Array, item: Tree) -> tuple[jax.Array, Tree]:
        """Return the synthetic images of an item's classes, ``[k, ipc, h, w, c]``, and its real
        batch: images, weight, class and seed, each ``[k, ...]``.
        """
        by_class = images.reshape(self.classes, self.ipc, *images.shape[1:])
        real = {
            "images": item["real"]["images"],
            "weight": item["real_weight"],
            "class": item["classes"],
            "seed": item["seed"],
        }
        return by_class[item["classes"]], real

    def part(self, images: int) -> int:
        """Return how many of a class's images the net processes at a time."""
        return self.net.part(images, concurrent=threads(len(self.groups)))

    def over_classes(
        self, one: Callable[[jax.Array, Tree], jax.Array], synthetic: jax.Array, real: Tree
    ) -> jax.Array:
        """Return ``one(synthetic, real)`` for every class of an item, ``[k]``."""
        if len(synthetic) == 1:
            return one(*jax.tree.map(lambda x: x[0], (synthetic, real)))[None]
        return jax.vmap(one)(synthetic, real)

    def augment(self, seed: jax.Array, images: jax.Array) -> jax.Array:
        """Augment a class's images identically: real and synthetic ones share seed and draws."""
        if self.strategy in ("", "none"):
            return images
        drawn = dsa.draw(jax.random.key(seed), len(images), self.strategy, siamese=True)
        return dsa.augment(drawn, images, self.strategy, self.config.align_corners)
