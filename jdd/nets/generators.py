"""Generators: nets that turn latent vectors and classes into images.

An architecture is plain data, ``{"name", "shape", "classes", "latent", **options}``, so that a
saved generator is rebuilt from its file and the function of that name: one of jdd's, or one that a
method outside the package registers (``Spec.generators``). A file itself never runs code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jdd.errors import BadInput, nearest
from jdd.nets import gan, priors
from jdd.nets.generator import Generator

__all__ = ["Generator", "find", "gaussian", "make", "register"]

Tree = Any


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


Make = Callable[..., Generator]  # (shape, classes, latent, **options) -> Generator
_OWN: dict[str, Make] = {
    "gaussian": gaussian,
    "vae": priors.vae,
    "diffusion": priors.diffusion,
    "acgan": gan.acgan,
}
_REGISTERED: dict[str, Make] = {}  # of methods outside the package


def register(name: str, make: Make) -> None:
    """Make the architecture ``name`` known to this process; a later function replaces it.

    Args:
      make: ``(shape, classes, latent, **options) -> Generator``.

    Raises:
      BadInput: jdd has an architecture of this name.
    """
    if name in _OWN:
        raise BadInput("generators", repr(name), "a name that no architecture of jdd has")
    _REGISTERED[name] = make


def find(name: Any, where: str = "the generator") -> Make:
    """Return the function of an architecture's name.

    Raises:
      BadInput: naming ``where``: no such architecture is known.
    """
    known = _OWN | _REGISTERED
    if name not in known:
        near = nearest(str(name), known)
        hint = f"did you mean {near}? " if near else ""
        own = "of a method outside jdd, load it with the method's file: --config=my_method.py, or"
        own += " jdd.load(path, config='my_method.py')"
        allowed = f"{hint}one of {', '.join(known)}; {own}"
        raise BadInput(where, f"generator {name!r}", allowed)
    return known[name]


def make(architecture: Mapping[str, Any], where: str = "the generator") -> Generator:
    """Build the generator of an architecture.

    Raises:
      BadInput: naming ``where``: no such generator, or values that it cannot have.
    """
    name, shape = architecture.get("name"), architecture.get("shape")
    build = find(name, where)
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(map(_count, shape)):
        raise BadInput(where, f"shape {shape!r}", "three whole numbers: height, width, channels")
    for key in ("classes", "latent"):
        if not _count(architecture.get(key)):
            raise BadInput(where, f"{key} {architecture.get(key)!r}", "a whole number, 1 or more")
    options = {k: v for k, v in architecture.items() if k not in ("name", "shape")}
    try:
        return build(tuple(shape), **options)
    except TypeError:
        raise BadInput(where, f"{name} with {sorted(options)}", "its own options") from None


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1
