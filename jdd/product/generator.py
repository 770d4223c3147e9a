"""A generator as a product: it samples a fresh set of labelled images each epoch."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd.data.transform import Transform
from jdd.errors import BadInput
from jdd.nets import generators
from jdd.product import arrays as plain
from jdd.product.distilled_set import read_recipe
from jdd.storage import json_files
from jdd.storage.files import write_atomic

Tree = Any
BATCH = 100  # images that are drawn at a time: bounds the memory of a generator's activations


class GeneratorSet(NamedTuple):
    """A trained generator and the settings for sampling images from it.

    Attributes:
      architecture: plain data from which ``nets.generators.make`` builds the net.
      params: its parameters, a nested dict of float32 arrays.
      per_class: images of each class in one epoch.
      recipe: how to train on the images, as plain data.
      transform: maps pixels in [0, 1] to the space of the images, and back.
      notes: sentences on assumptions made in reading it; not saved.
      result: of the run that made it, as for ``DistilledSet``; not saved.
    """

    architecture: dict[str, Any]
    params: Tree
    per_class: int
    recipe: dict[str, Any]
    transform: Transform
    notes: tuple[str, ...] = ()
    result: Mapping[str, Any] = MappingProxyType({})

    @property
    def kind(self) -> str:
        """The kind of product, one of ``base.KINDS``."""
        return "generator"

    @property
    def label_kind(self) -> str:
        """The kind of its labels: classes."""
        return "hard"

    @property
    def lr(self) -> None:
        """The learned rate of the student: always None."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return tuple(self.recipe["class_names"])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.recipe["class_names"])

    @property
    def size(self) -> int:
        """The number of images of one epoch."""
        return self.classes * self.per_class

    @property
    def labels(self) -> np.ndarray:
        """Classes of the images of every epoch, class by class; int32 [size]."""
        return np.repeat(np.arange(self.classes, dtype=np.int32), self.per_class)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the parameters, in float32."""
        return 4 * sum(int(np.size(leaf)) for leaf in jax.tree.leaves(self.params))

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        h, w, c = self.architecture["shape"]
        return h, w, c

    @property
    def parameters(self) -> int:
        """The number of its parameters."""
        return self.stored_bytes // 4

    @property
    def equal_images(self) -> int:
        """The number of images, in float32, that take as many bytes as the parameters."""
        return self.stored_bytes // (4 * math.prod(self.shape))

    def with_per_class(self, count: int) -> GeneratorSet:
        """Return the generator with ``count`` images of each class in one epoch.

        Its random images are then as many, unless its ``ipc`` stands for bytes.

        Raises:
          BadInput: ``count`` is below 1.
        """
        if count < 1:
            raise BadInput("with_per_class", str(count), "a whole number, 1 or more")
        of_bytes = self.recipe["ipc"] != self.per_class
        recipe = self.recipe if of_bytes else self.recipe | {"ipc": count}
        return self._replace(per_class=count, recipe=recipe)

    def images(self, key: jax.Array) -> jax.Array:
        """Return the images of one epoch, float32 [size, h, w, c], drawn from ``key``."""
        build = generators.find(self.architecture.get("name"))
        draw = _drawing(build, json.dumps(self.architecture, sort_keys=True), self.per_class)
        images: jax.Array = draw(self.params, key)
        return images

    def apply(self, z: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the images, float32 ``[n, h, w, c]``, of latents ``[n, latent]`` and classes."""
        build = generators.find(self.architecture.get("name"))
        found: jax.Array = _applied(build, json.dumps(self.architecture, sort_keys=True))(
            self.params, z, labels
        )
        return found

    def drawn(self, key: jax.Array, labels: np.ndarray, batch: int = BATCH) -> np.ndarray:
        """Return images of these classes, float32 ``[n, h, w, c]``, drawn from ``key``.

        ``batch`` at a time; image i of batch b depends on the key, b and i alone.
        """
        found, latent = [], int(self.architecture["latent"])
        for at, lo in enumerate(range(0, len(labels), batch)):
            rows = np.asarray(labels[lo : lo + batch], np.int32)
            few = np.pad(rows, (0, min(batch, len(labels)) - len(rows)))  # one compiled shape
            z = jax.random.normal(jax.random.fold_in(key, at), (len(few), latent))
            found.append(np.asarray(self.apply(z, jax.numpy.asarray(few)))[: len(rows)])
        return np.concatenate(found)

    def with_recipe(self, recipe: dict[str, Any]) -> GeneratorSet:
        """Return the same generator with another recipe."""
        return self._replace(recipe=recipe)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the generator as ``.npz`` of plain arrays, atomically.

        Raises:
          BadInput: it is inconsistent, or ``path`` cannot be written.
        """
        found = to_arrays(validate(self, str(path)))
        return write_atomic(path, lambda file: np.savez(file, **found))  # type: ignore[arg-type]


@functools.lru_cache(maxsize=16)
def _drawing(build: generators.Make, architecture: str, per_class: int) -> Any:
    """Return the compiled function that samples one epoch's images.

    ``build`` is that of the architecture's name: a function registered later has its own program.
    """
    described = json.loads(architecture)
    net = generators.make(described)
    labels = np.repeat(np.arange(described["classes"], dtype=np.int32), per_class)

    def draw(params: Tree, key: jax.Array) -> jax.Array:
        z = jax.random.normal(key, (len(labels), net.latent))
        return net.apply(params, z, jax.numpy.asarray(labels))

    return jax.jit(draw)


@functools.lru_cache(maxsize=16)
def _applied(build: generators.Make, architecture: str) -> Any:
    """Return the compiled function from latents and classes to images; as ``_drawing``."""
    return jax.jit(generators.make(json.loads(architecture)).apply)


def to_arrays(found: GeneratorSet) -> dict[str, np.ndarray]:
    """Return the generator as named plain arrays of schema 2."""
    described = found.architecture | {"per_class": found.per_class}
    arrays = {
        "schema_version": np.asarray(2, np.int32),
        "kind": np.asarray("generator"),
        "generator": np.asarray(json.dumps(described, sort_keys=True)),
        "recipe": np.asarray(plain.recipe_json(found.recipe)),
    }
    arrays |= plain.transform_arrays(found.transform)
    flat = sorted(plain.flat(found.params).items())
    return arrays | {f"params/{path}": np.asarray(leaf, np.float32) for path, leaf in flat}


def from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> GeneratorSet:
    """Build a generator from the arrays of ``to_arrays``; ``where`` is the file's name in errors.

    Raises:
      BadInput: an array is missing, or the arrays are inconsistent.
    """
    plain.require(arrays, ("generator", "recipe"), where)
    try:
        described = json_files.parse(str(arrays["generator"]), where, plain.EXPECTED)
        per_class = described.pop("per_class")
    except (BadInput, KeyError):
        raise BadInput(where, "no description of its generator", plain.EXPECTED) from None
    params = plain.nested(
        {n.removeprefix("params/"): a for n, a in arrays.items() if n.startswith("params/")}
    )
    recipe = read_recipe(str(arrays["recipe"]), where)
    transform = plain.transform_of(arrays, recipe, where)
    return validate(GeneratorSet(described, params, per_class, recipe, transform), where)


def validate(found: GeneratorSet, where: str) -> GeneratorSet:
    """Return the generator with its arrays in their declared types.

    Raises:
      BadInput: parameters, architecture, transform and recipe are inconsistent.
    """
    net = generators.make(found.architecture, where)
    if not isinstance(found.per_class, int) or found.per_class < 1:
        raise BadInput(where, f"per_class {found.per_class!r}", "a whole number, 1 or more")
    if found.architecture["classes"] != found.classes or not found.classes:
        words = f"a generator of {found.architecture['classes']} classes"
        raise BadInput(where, f"{words}, {found.classes} class names", "a name for every class")
    like = plain.flat(jax.eval_shape(net.init, jax.random.key(0)))
    have = plain.flat(found.params)
    for path in sorted({*like, *have}):
        shape = list(np.shape(have[path])) if path in have else "missing"
        wanted = list(like[path].shape) if path in like else "no such parameter"
        if shape != wanted:
            raise BadInput(where, f"params/{path} is {shape}", f"{wanted}, by its architecture")
        plain.floats(have[path], f"params/{path}", None, where)
    plain.validate_transform(found.transform, tuple(found.architecture["shape"]), where)
    params = jax.tree.map(lambda a: np.asarray(a, np.float32), found.params)
    return found._replace(params=params, recipe=plain.as_read(found.recipe))
