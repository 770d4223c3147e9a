"""The interface of a generator: latent vectors and classes to images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

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
