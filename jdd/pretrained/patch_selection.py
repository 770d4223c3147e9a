"""Selection of crops of real images by a teacher's cross entropy, easiest first.

For each class up to ``candidates`` images are drawn, and ``crops`` random square crops of each; a
crop is enlarged to the image's size. Each image is represented by its crop of lowest cross entropy
with the class, and images are ordered by it.

    <store>/crops-i<ipc>-s<seed>.npz    rows and boxes of ``medium``, computed once

Source: RDED (Sun et al., CVPR 2024), section 3.2; the start of images in SRe2L++ (Cui et al.,
"Dataset Distillation via Committee Voting", 2025), whose code has its patches ready-made.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import views
from jdd.data import Dataset
from jdd.data.sampler import class_indices
from jdd.nets import Net
from jdd.pretrained.teachers import Teacher
from jdd.storage import npz_cache

Tree = Any
BATCH = 200  # crops per forward pass of a teacher


class Rule(NamedTuple):
    """Rule for candidate and selected crops; hashable.

    ``min_scale`` is the smallest area of a crop as a fraction of the image, the largest is 1. The
    teacher's input is a crop shrunk by ``factor`` and padded with zeros (``padded``). ``part`` is
    "best", the first in the order, or "middle": of n images the k from (n - k) // 2 on.
    """

    candidates: int = 300
    crops: int = 5
    min_scale: float = 0.08
    factor: int = 1
    part: str = "best"


MEDIUM = Rule(part="middle")


class Crops(NamedTuple):
    """Rows of the training images [n], class-major, and the box of each, int32 [n, 4]: top, left,
    height and width in pixels.
    """

    rows: np.ndarray
    box: np.ndarray


def select(teacher: Teacher, data: Dataset, seed: int, wanted: int, rule: Rule) -> Crops:
    """Return ``wanted`` crops of every class, the easiest of them first.

    A class with fewer images gives its images several times, with other crops. For an untrained
    teacher: whole images in the order of the draw.
    """
    variables = jax.tree.map(jnp.asarray, teacher.variables())
    found = []
    for label, rows in enumerate(class_indices(data.train.labels, data.classes)):
        drawn = rng.host(seed, "rded/images", label).permutation(rows)
        drawn = drawn[: max(rule.candidates, wanted)]
        if len(drawn) < wanted:
            drawn = np.resize(drawn, wanted)
        if teacher.store is None:
            whole = np.tile(np.array([0, 0, *data.shape[:2]], np.int32), (wanted, 1))
            found.append(Crops(drawn[:wanted], whole))
            continue
        box, scores = _candidates(teacher.frozen, variables, data, seed, label, drawn, rule)
        image, crop = taken(scores, wanted, rule.part)
        found.append(Crops(drawn[image], box[image, crop]))
    return Crops(*(np.concatenate(own) for own in zip(*found, strict=True)))


def taken(scores: np.ndarray, wanted: int, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the selected images and the crop of each, [wanted], by scores [images, crops].

    Ties stay in their order.
    """
    order = np.argsort(scores.min(1), kind="stable")
    first = (len(order) - wanted) // 2 if part == "middle" else 0
    image = order[first : first + wanted]
    return image, scores[image].argmin(1)


def medium(teacher: Teacher, data: Dataset, seed: int, ipc: int) -> Crops:
    """Return ``select`` by the rule ``MEDIUM``, computed once and stored next to the teacher."""
    if teacher.store is None:
        return select(teacher, data, seed, ipc, MEDIUM)
    path = teacher.store.directory / f"crops-i{ipc}-s{seed}.npz"
    own = {"ipc": ipc, "of": seed, "weights": teacher.digest(), **MEDIUM._asdict()}
    settings = {**teacher.settings, **own}
    arrays = npz_cache.read(path, settings)
    if arrays is None:
        found = select(teacher, data, seed, ipc, MEDIUM)
        npz_cache.write(path, settings, found._asdict())
        return found
    return Crops(**arrays)


@jax.jit
def cut(images: jax.Array, box: jax.Array) -> jax.Array:
    """Return the crops of images [n, h, w, c] at boxes [n, 4], enlarged to [n, h, w, c]."""
    shape, plain = images.shape[1:3], views.Spec(flip=0.0)
    whole = views.draw(jax.random.key(0), len(images), shape, plain)
    return views.apply(images, whole._replace(box=box))


def shrunk(images: jax.Array, factor: int) -> jax.Array:
    """Return the means over factor x factor pixels, ``[n, h // factor, w // factor, c]``."""
    n, h, w, c = images.shape
    whole = images[:, : h // factor * factor, : w // factor * factor]
    return whole.reshape(n, h // factor, factor, w // factor, factor, c).mean((2, 4))


def padded(cells: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Centre cells [n, h, w, c] in images of ``shape`` (height, width), padded with zeros.

    Odd padding has the extra zero below and on the right.
    """
    spare = [whole - own for whole, own in zip(shape, cells.shape[1:3], strict=True)]
    return jnp.pad(cells, ((0, 0), *((n // 2, n - n // 2) for n in spare), (0, 0)))


def _candidates(
    net: Net, variables: Tree, data: Dataset, seed: int, label: int, drawn: np.ndarray, rule: Rule
) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes of all crops, [images, crops, 4], and their cross entropies."""
    every, judge, boxes, scores = np.repeat(drawn, rule.crops), _judge(net, rule), [], []
    size = min(BATCH, len(every))
    for i, lo in enumerate(range(0, len(every), size)):
        index = np.resize(every[lo : lo + size], size)
        key = jax.random.fold_in(rng.key(seed, "rded/crops", label), i)
        box, score = judge(variables, data.train.images[index], key, label)
        boxes.append(np.asarray(box))
        scores.append(np.asarray(score))
    shape = (len(drawn), rule.crops)
    found = [np.concatenate(a)[: len(every)] for a in (boxes, scores)]
    return found[0].reshape(*shape, 4), found[1].reshape(shape)


@lru_cache(maxsize=16)
def _judge(net: Net, rule: Rule) -> Any:
    """Return the compiled ``f(variables, images, key, label) -> (boxes, cross entropies)``."""
    spec = views.Spec(crop="resized", scale=(rule.min_scale, 1.0), ratio=(1.0, 1.0), flip=0.0)

    @jax.jit
    def judge(variables: Tree, images: jax.Array, key: jax.Array, label: jax.Array) -> Tree:
        h, w = images.shape[1:3]
        view = views.draw(key, len(images), (h, w), spec)
        cells = shrunk(views.apply(images, view), rule.factor)
        logits = net.apply(variables, padded(cells, (h, w)), train=False).logits
        return view.box, -jax.nn.log_softmax(logits)[:, label]

    return judge
