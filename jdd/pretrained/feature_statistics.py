"""Statistics of a trained net's layer inputs on real images, stored next to its weights.

    <store>/statistics-p<patch>.npz            arrays named "<layer>:<statistic>"
    <store>/statistics-classes-p<patch>.npz    the same of each class, [classes, ...]

The training images are passed through once for each file; later calls read it.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import crops
from jdd.data import Dataset
from jdd.matching.statistics import Hooks, hook_statistics, image_statistics, running
from jdd.nets import Net
from jdd.nets.order import order
from jdd.pretrained.teachers import Teacher
from jdd.storage import npz_cache

Tree = Any
_APART = ":"  # separator; does not occur in a layer's path


def targets(teacher: Teacher, data: Dataset, patch: int) -> Hooks:
    """Return the statistics of real images at every hook of a teacher, float32.

    Those of a batch norm are its running statistics. Those of a convolution are the mean of
    ``hook_statistics`` over batches of the training images, of ``squeeze.batch`` images except the
    last, weighted by their sizes; images are augmented as in squeeze, the net is in eval mode. So
    variances are those within a batch. Those of an untrained teacher are 0.
    """
    convs, norms = order(teacher.net, ["conv"]), order(teacher.net, ["batch"])
    variables = teacher.variables()
    found = running(variables.get("batch_stats", {}), norms)
    if teacher.store is None:
        image = jax.ShapeDtypeStruct((1, *teacher.net.shape), jnp.float32)
        shapes = jax.eval_shape(_reader(teacher.net, "", patch), variables, image, rng.key(0, ""))
        return found | jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    if not convs:
        return found
    path = teacher.store.directory / f"statistics-p{patch}.npz"
    settings = {**teacher.settings, "patch": patch}
    measured = _read(path, settings, convs)
    if measured is None:
        measured = _measured(teacher, variables, data, patch)
        _write(path, settings, measured)
    return found | measured


def class_targets(teacher: Teacher, data: Dataset, patch: int) -> Hooks:
    """Return the statistics of each class's real images at every hook, float32 ``[classes, ...]``.

    They are means over the class's images of ``image_statistics``, so variances are those within an
    image; images are augmented as in squeeze, the net is in eval mode. Those of an untrained
    teacher are 0.

    Source: EDC (Shao et al., NeurIPS 2024), category-wise matching, as in its code.
    """
    if teacher.store is None:
        variables, image = teacher.variables(), jax.ShapeDtypeStruct(
            (1, *teacher.net.shape), jnp.float32
        )  # fmt: skip
        read = _class_reader(teacher.net, "", patch, data.classes)
        label = jax.ShapeDtypeStruct((1,), jnp.int32)
        shapes = jax.eval_shape(read, variables, image, label, rng.key(0, ""))
        return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    path = teacher.store.directory / f"statistics-classes-p{patch}.npz"
    settings = {**teacher.settings, "patch": patch, "classes": data.classes}
    hooks = order(teacher.net, ["conv", "batch"])
    measured = _read(path, settings, hooks)
    if measured is None:
        measured = _measured_by_class(teacher, data, patch)
        _write(path, settings, measured)
    return measured


@lru_cache(maxsize=16)
def _class_reader(net: Net, strategy: str, patch: int, classes: int) -> Any:
    """Return the compiled ``f(variables, images, labels, key) -> hooks``, sums over each class."""
    convs, norms = order(net, ["conv"]), order(net, ["batch"])

    @jax.jit
    def read(variables: Tree, images: jax.Array, labels: jax.Array, key: jax.Array) -> Hooks:
        seen = crops.apply(0, key, images, strategy)
        taps = net.apply(variables, seen, train=False, taps="all").taps
        each = image_statistics(taps, convs, norms, patch)
        mine = jax.nn.one_hot(labels, classes, dtype=jnp.float32)
        high = jax.lax.Precision.HIGHEST
        return jax.tree.map(lambda x: jnp.einsum("nc,n...->c...", mine, x, precision=high), each)

    return read


def _measured_by_class(teacher: Teacher, data: Dataset, patch: int) -> Hooks:
    train, batch, seed = data.train, teacher.recipe.batch, int(teacher.settings["seed"])
    read = _class_reader(teacher.frozen, teacher.recipe.strategy, patch, data.classes)
    variables, total = jax.tree.map(jnp.asarray, teacher.variables()), None
    for i, lo in enumerate(range(0, len(train.labels), batch)):
        rows = slice(lo, lo + batch)
        key = rng.key(seed, "statistics/class-view", i)
        labels = np.asarray(train.labels[rows], np.int32)
        own = jax.device_get(read(variables, train.images[rows], labels, key))
        own = jax.tree.map(lambda x: np.asarray(x, np.float64), own)
        total = own if total is None else jax.tree.map(np.add, total, own)
    counts = np.bincount(train.labels, minlength=data.classes)

    def mean(x: np.ndarray) -> np.ndarray:
        return np.asarray(x / counts.reshape(-1, *(1,) * (x.ndim - 1)), np.float32)

    return dict(jax.tree.map(mean, total))


@lru_cache(maxsize=16)
def _reader(net: Net, strategy: str, patch: int) -> Any:
    """Return the compiled ``f(variables, images, key) -> hooks`` of a net's convolutions."""
    convs = order(net, ["conv"])

    @jax.jit
    def read(variables: Tree, images: jax.Array, key: jax.Array) -> Hooks:
        seen = crops.apply(0, key, images, strategy)
        taps = net.apply(variables, seen, train=False, taps="all").taps
        return hook_statistics(taps, convs, (), patch)

    return read


def _measured(teacher: Teacher, variables: Tree, data: Dataset, patch: int) -> Hooks:
    images, batch, seed = data.train.images, teacher.recipe.batch, int(teacher.settings["seed"])
    # Batches of mixed classes: files are often sorted by class.
    rows = rng.host(seed, "statistics/order").permutation(len(images))
    read = _reader(teacher.frozen, teacher.recipe.strategy, patch)
    variables, total = jax.tree.map(jnp.asarray, variables), None
    for i, lo in enumerate(range(0, len(rows), batch)):
        here = images[rows[lo : lo + batch]]
        own = jax.device_get(read(variables, here, rng.key(seed, "statistics/view", i)))
        part = len(here) / len(rows)
        own = jax.tree.map(lambda x, part=part: part * np.asarray(x, np.float64), own)
        total = own if total is None else jax.tree.map(np.add, total, own)
    return dict(jax.tree.map(np.float32, total))


def _write(path: Path, settings: dict[str, Any], hooks: Hooks) -> None:
    arrays = {
        f"{name}{_APART}{key}": np.asarray(value)
        for name, own in hooks.items()
        for key, value in own.items()
    }
    npz_cache.write(path, settings, arrays)


def _read(path: Path, settings: dict[str, Any], names: tuple[str, ...]) -> Hooks | None:
    """Return the statistics of ``names``; None if missing, truncated or of another teacher."""
    hooks: dict[str, dict[str, Any]] = {}
    for word, value in (npz_cache.read(path, settings) or {}).items():
        name, key = word.split(_APART)
        hooks.setdefault(name, {})[key] = value
    return hooks if set(hooks) == set(names) else None
