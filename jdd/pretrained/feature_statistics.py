"""Statistics of a trained net's layer inputs on real images, stored next to its weights.

    <store>/statistics-p<patch>.npz    arrays named "<layer>:<statistic>"

The training images are passed through once; later calls read the file.
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
from jdd.matching.statistics import Hooks, hook_statistics, running
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


def _read(path: Path, settings: dict[str, Any], convs: tuple[str, ...]) -> Hooks | None:
    """Return the statistics in ``path``; None if missing, truncated or of another teacher."""
    hooks: dict[str, dict[str, Any]] = {}
    for word, value in (npz_cache.read(path, settings) or {}).items():
        name, key = word.split(_APART)
        hooks.setdefault(name, {})[key] = value
    return hooks if set(hooks) == set(convs) else None
