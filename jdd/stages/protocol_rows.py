"""What a common protocol trains nets on: the set, random real images and coresets, as pixels.

All rows are in one space, that of the dataset's own mean and deviation: a set's normalisation and
whitening are undone first. Labels are classes; soft labels of the set itself are not read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.data import Dataset, draw_per_class
from jdd.evaluation import train_eval
from jdd.evaluation.predict import outputs
from jdd.matching import selection
from jdd.product import bytes as size
from jdd.product.distilled_set import DistilledSet
from jdd.product.generator import GeneratorSet
from jdd.stages.protocol_nets import ProtocolTeacher
from jdd.stages.validation import baseline_size

SET, RANDOM, RANDOM_BYTES = "set", "random", "random_bytes"
CORESETS = ("herding", "kcenter", "el2n")
_LABEL = 4  # bytes of a class
_SEEN = 256  # real images by which their precision is found

Product = DistilledSet | GeneratorSet


class Row(NamedTuple):
    """One kind of training images: ``each`` of a class, and the bytes a class that they take.

    ``draws``: the number of different sets; 1 for all but random images.
    """

    name: str
    each: float
    bytes: float
    draws: int = 1


class Material(NamedTuple):
    """The images of a row, ``[draws, n, h, w, c]``, and their classes, int32 ``[draws, n]``.

    ``weights`` of their losses are ``[n]``, or None. ``fresh(epoch)`` are a generator's images of
    an epoch, ``[n, h, w, c]``; ``images`` are then those of epoch 0.
    """

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None
    fresh: Callable[[int], jax.Array] | None = None


def rows(dset: Product, data: Dataset, draws: int) -> list[Row]:
    """Return the rows that are measured for a set.

    Random images and coresets have as many images of each class as the set stores (of a generator
    ``ipc``). Random images of as many bytes as the set's are a row of their own where these are not
    as many; of a class that has fewer images, all of them.

    Args:
      data: the dataset, normalised.
      draws: draws of random images; 0 for none.
    """
    most = int(np.bincount(data.train.labels, minlength=data.classes).min())
    each = min(most, max(1, baseline_size(dset) // dset.classes))
    taken = weight(dset)
    bits = size.precision(np.asarray(data.train.images[:_SEEN]), data.transform)
    one = int(np.prod(data.shape)) * bits // 8 + _LABEL
    found = [Row(SET, dset.size / dset.classes, taken)]
    if draws:
        found.append(Row(RANDOM, each, each * one, draws))
        equal = min(most, max(1, int(taken // one)))
        if equal != each:
            found.append(Row(RANDOM_BYTES, equal, equal * one, draws))
    return found + [Row(name, each, each * one) for name in CORESETS]


def weight(dset: Product) -> float:
    """Return the bytes a class of what the protocol reads: pixels and classes, or weights."""
    if isinstance(dset, GeneratorSet):
        return size.of(dset).each
    hard = dset._replace(labels=dset.classes_of_images, label_kind="hard")
    return size.of(hard).each


def material(
    row: Row, dset: Product, data: Dataset, teacher: ProtocolTeacher, seed: int
) -> Material:
    """Return the images of a row in the space of ``data``."""
    if row.name != SET:
        index = _chosen(row, data, teacher, seed)
        images = np.asarray(data.train.images[index.ravel()])
        return Material(images.reshape(*index.shape, *data.shape), data.train.labels[index])
    if isinstance(dset, GeneratorSet):
        fresh = drawn(dset, data, seed)
        return Material(np.asarray(fresh(0))[None], dset.labels[None], fresh=fresh)
    whole = train_eval.formed(dset)
    shown = in_space(whole.images, whole, data)
    return Material(shown[None], whole.classes_of_images[None], whole.weights)


def _chosen(row: Row, data: Dataset, teacher: ProtocolTeacher, seed: int) -> np.ndarray:
    """Return training rows ``[draws, n]``, class-major."""
    labels, classes, each = data.train.labels, data.classes, int(row.each)
    if row.name in (RANDOM, RANDOM_BYTES):
        draws = (rng.host(seed, "random", i) for i in range(row.draws))
        return np.stack([draw_per_class(draw, labels, classes, each) for draw in draws])
    rule: selection.Rule
    if row.name == "el2n":
        logits = outputs(teacher.net, teacher.early, data.train.images).logits
        features, rule = selection.error_norms(logits, labels), partial(selection.band, place=0.0)
    else:
        features = outputs(teacher.net, teacher.variables, data.train.images).features
        rule = {"herding": selection.herding, "kcenter": selection.kcenter}[row.name]
    return selection.by_class(rule, features, labels, classes, each)[None]


def in_space(images: np.ndarray, dset: Product, data: Dataset) -> np.ndarray:
    """Return a set's images in the space of ``data``: unchanged if that is the set's own.

    Pixels outside [0, 1], which learned images have, are not clipped.
    """
    ours, theirs = data.transform, dset.transform
    same = theirs.kind == "none" == ours.kind
    if same and np.array_equal(ours.mean, theirs.mean) and np.array_equal(ours.std, theirs.std):
        return np.asarray(images)
    return ours.forward(theirs.inverse(images))


def drawn(generator: GeneratorSet, data: Dataset, seed: int) -> Callable[[int], jax.Array]:
    """Return ``f(epoch) -> images [n, h, w, c]`` of a generator, the same for all nets."""

    @functools.lru_cache(maxsize=1)
    def images(epoch: int) -> Any:
        found = generator.images(rng.key(seed, "protocol/generator", epoch))
        return jnp.asarray(in_space(np.asarray(found), generator, data))

    return images
