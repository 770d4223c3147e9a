"""Generators: nets that turn latent vectors and classes into images.

An architecture is plain data, ``{"name", "shape", "classes", "latent", **options}``, so that a
saved generator is rebuilt from its file alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.errors import BadInput, nearest

Tree = Any


class Generator(NamedTuple):
    """A generator as pure functions.

    Fields:
      init: ``key -> params``.
      apply: ``(params, z, labels) -> images``: z ``[n, latent]``, labels int ``[n]``, images
        ``[n, h, w, c]`` in the input space of the nets that learn from them.
      latent: the length of z.
    """

    init: Callable[[jax.Array], Tree]
    apply: Callable[[Tree, jax.Array, jax.Array], jax.Array]
    latent: int


def gaussian(shape: tuple[int, int, int], classes: int, latent: int) -> Generator:
    """Return a Gaussian of each class, of rank ``latent``: x = mean_y + z F_y.

    Params: ``mean`` ``[classes, h w c]``, ``factors`` ``[classes, latent, h w c]``.
    """
    size = shape[0] * shape[1] * shape[2]

    def init(key: jax.Array) -> Tree:
        factors = jax.random.normal(key, (classes, latent, size)) / jnp.sqrt(1.0 * size)
        return {"mean": jnp.zeros((classes, size)), "factors": factors}

    def apply(params: Tree, z: jax.Array, labels: jax.Array) -> jax.Array:
        moved = jnp.einsum("nl,nld->nd", z, params["factors"][labels])
        return (params["mean"][labels] + moved).reshape(-1, *shape)

    return Generator(init, apply, latent)


_TABLE: dict[str, Callable[..., Generator]] = {"gaussian": gaussian}
NAMES = tuple(_TABLE)


def make(architecture: Mapping[str, Any], where: str = "the generator") -> Generator:
    """Build the generator of an architecture.

    Raises:
      BadInput: naming ``where``: no such generator, or values that it cannot have.
    """
    name, shape = architecture.get("name"), architecture.get("shape")
    if name not in _TABLE:
        near = nearest(str(name), NAMES)
        hint = f"did you mean {near}? " if near else ""
        raise BadInput(where, f"generator {name!r}", f"{hint}one of {', '.join(NAMES)}")
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(map(_count, shape)):
        raise BadInput(where, f"shape {shape!r}", "three whole numbers: height, width, channels")
    for key in ("classes", "latent"):
        if not _count(architecture.get(key)):
            raise BadInput(where, f"{key} {architecture.get(key)!r}", "a whole number, 1 or more")
    options = {k: v for k, v in architecture.items() if k not in ("name", "shape")}
    try:
        return _TABLE[name](tuple(shape), **options)
    except TypeError:
        raise BadInput(where, f"{name} with {sorted(options)}", "its own options") from None


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
