"""Recovery of images from teachers, in batches; shared by SRe2L, CDA and G-VBSM.

A batch is a rectangle of the set, some classes by some images of each; it is optimised separately,
for all steps. ``batches_at_once`` batches of one size are optimised together: a part of the set. So
memory does not grow with the set, and a run resumes at its current part. Parts of equal ``form``
share compiled programs: the objective depends on a part only through its form.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import parallel, rng
from jdd.augment import views
from jdd.data import draw_per_class
from jdd.data.quantise import quantised
from jdd.errors import BadInput
from jdd.methods import decoupled
from jdd.methods.base import Method, Problem, State, noised
from jdd.nets import Net
from jdd.nets.order import order
from jdd.pretrained import patch_selection
from jdd.product.distilled_set import DistilledSet
from jdd.schema.decoupled import Recover

Tree = Any


class Batch(NamedTuple):
    """Images recovered together: the batch's ``number``, rows of the set ``[classes, of each]``."""

    number: int
    rows: np.ndarray

    @property
    def size(self) -> int:
        """Number of images."""
        return int(self.rows.size)


class Part(tuple[Batch, ...]):
    """Batches that are optimised together."""

    @property
    def form(self) -> tuple[int, ...]:
        """The key of a part's compiled programs: the number of batches and their shape."""
        return len(self), *self[0].rows.shape

    @property
    def name(self) -> str:
        """The numbers of its batches; if there are many, the first, the last and a hash of all."""
        numbers = [str(batch.number) for batch in self]
        name = "-".join(numbers)
        if len(name) <= NAME:
            return name
        return f"{numbers[0]}-{numbers[-1]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"


NAME = 100  # characters, of the 255 allowed in a file's name


def batches(classes: int, ipc: int, size: int, of_class: int) -> list[Batch]:
    """Cut a class-major set into batches of at most ``size`` images, ``of_class`` of one class.

    The pieces of either side are as equal as possible; a row is class * ipc + image.
    """
    found: list[Batch] = []
    each = min(of_class, ipc, size)
    for images in _equal(ipc, each):
        for group in _equal(classes, max(1, size // len(images))):
            found.append(Batch(len(found), group[:, None] * ipc + images[None]))
    return found


def _equal(n: int, most: int) -> list[np.ndarray]:
    return np.array_split(np.arange(n), math.ceil(n / most))


def parts(config: Recover, problem: Problem) -> list[Part]:
    """Return the parts of the set: batches of one shape, ``batches_at_once`` per part.

    They do not depend on the number of processes that share a step: a run that goes on with
    another number has the same parts.
    """
    every = batches(problem.data.classes, config.ipc, config.image_batch, config.class_images)
    devices = parallel.pick(config.devices)
    found: list[Part] = []
    for shape in dict.fromkeys(batch.rows.shape for batch in every):
        alike = [batch for batch in every if batch.rows.shape == shape]
        one_each = max(1, config.image_batch // alike[0].size)
        one_each = os.cpu_count() or 1 if devices[0].platform == "cpu" else one_each
        at_once = config.batches_at_once or one_each * len(devices)
        found += [Part(alike[lo : lo + at_once]) for lo in range(0, len(alike), at_once)]
    return found


Objective = Callable[[Tree, Tree, Tree, jax.Array, jax.Array], tuple[jax.Array, Tree]]


def build(
    problem: Problem,
    part: Part | None,
    loss: Objective,
    constants: Tree,
    extra: Callable[[Part], Tree] = lambda part: {},
) -> Method:
    """Return the recovery of a part of the set; ``part`` None: of the whole set at once.

    The images of a batch are optimised by Adam(0.5, 0.9) at lr_img (1 + cos(pi t / steps)) / 2 and
    clipped to the range of pixels after each step.

    Args:
      problem: the problem.
      part: the part.
      loss: ``(images [b, ...], labels [b], aux, item, key) -> (loss, (new, metrics))`` of a batch.
      constants: see ``Method.constants``.
      extra: further entries of the state's ``aux``, for a part.
    """
    config, data = cast(Recover, problem.config), problem.data
    every = parts(config, problem)
    mine = Part(b for p in every for b in p) if part is None else part
    rows = np.concatenate([b.rows.ravel() for p in every for b in p])
    size = mine[0].size
    numbers = np.asarray([b.number for b in mine], np.int32)
    low, high = (jnp.asarray(a)[None, None, None] for a in bounds(data.transform, data.shape))

    def init(seed: int) -> State:
        images = jnp.concatenate([_first(problem, seed, batch) for batch in mine])
        return State({"images": images}, {"step": jnp.zeros((), jnp.int32), **extra(mine)})

    def sample(seed: int, step: int) -> dict[str, Any]:
        places = np.arange(len(mine), dtype=np.int32)
        labels = np.stack([b.rows.ravel() // config.ipc for b in mine]).astype(np.int32)
        return {"place": places, "labels": labels, "keys": numbers}

    def objective(variables: Tree, aux: Tree, item: Tree, key: jax.Array) -> Tree:
        images = jax.lax.dynamic_slice_in_dim(variables["images"], item["place"] * size, size)
        return loss(images, item["labels"], aux, item, key)

    def advance(state: State, key: jax.Array) -> State:
        images = jnp.clip(state.variables["images"], low, high)
        return State({"images": images}, {**state.aux, "step": state.aux["step"] + 1})

    def distilled(state: State, steps: int) -> DistilledSet:
        images = np.empty_like(np.asarray(state.variables["images"]))
        images[rows] = np.asarray(state.variables["images"])
        images = quantised(images, data.transform, config.quantise)
        return decoupled.dataset(problem, images, steps)

    rate = optax.cosine_decay_schedule(config.lr_img, max(config.steps, 1))
    # The loop averages over the batches, which are independent.
    optimizer = optax.chain(optax.scale(float(len(mine))), optax.adam(rate, b1=0.5, b2=0.9))
    return Method(
        init, sample, objective, distilled, optimizer, advance=advance, constants=constants,
        simple=True, merged=True,
    )  # fmt: skip


def _first(problem: Problem, seed: int, batch: Batch) -> jax.Array:
    """Return the initial images of a batch: ``[b, h, w, c]``."""
    config, data = cast(Recover, problem.config), problem.data
    if config.pix_init == "patch":
        found, own = (
            patch_selection.medium(problem.teachers[0], data, seed, config.ipc),
            batch.rows.ravel(),
        )
        crops = patch_selection.cut(data.train.images[found.rows[own]], found.box[own])
        return _started(problem, crops, seed, batch)
    if config.pix_init == "real":
        rows = draw_per_class(
            rng.host(seed, "recover/init"),
            data.train.labels,
            data.classes,
            config.ipc,
            config.ipc_short,
        )
        return _started(problem, data.train.images[rows[batch.rows.ravel()]], seed, batch)
    return jax.random.normal(
        rng.key(seed, "recover/noise", batch.number), (batch.size, *data.shape)
    )


def _started(problem: Problem, images: Any, seed: int, batch: Batch) -> jax.Array:
    """Return the real images that a batch starts from, those that a class lacks as noise."""
    if problem.config.ipc_short != "noise":
        return jnp.asarray(images)
    own = batch.rows.ravel()
    return jnp.asarray(noised(problem, np.asarray(images), seed, "recover/init", own, batch.number))


def bounds(transform: Any, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return black and white pixels in the space of the images: ``[c]`` each."""
    ends = (np.full((1, *shape), v, np.float32) for v in (0.0, 1.0))
    low, high = (transform.forward(end)[0, 0, 0] for end in ends)
    return low, high


def spec(config: Recover, shape: tuple[int, ...]) -> views.Spec:
    """Return the views of a step: one crop, one flip and one shift for a whole batch."""
    return views.Spec(
        crop=config.crop,
        scale=(config.min_scale, 1.0),
        pad=max(1, shape[0] // 8),
        flip=float(config.flip),
        roll=config.roll,
        shared=True,
    )


def hooks(net: Net, kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the layers of a teacher that have statistics, in execution order.

    Raises:
      BadInput: it has none of these ``kinds`` (``nets/order.py``).
    """
    found = order(net, kinds)
    if not found:
        words = " and no ".join({"conv": "convolution", "batch": "batch norm"}[k] for k in kinds)
        raise BadInput(
            "config.squeeze.nets", f"{net.name}, which has no {words}",
            "nets whose layers have statistics, such as ResNet18BN",
        )  # fmt: skip
    return found


def variables_of(problem: Problem) -> list[Tree]:
    """Return the teachers' variables."""
    return [teacher.variables() for teacher in problem.teachers]


def named(sequence: Sequence[Tree]) -> dict[str, Tree]:
    """Return a list as a dict of indices, for trees of dicts only."""
    return {str(i): value for i, value in enumerate(sequence)}
