"""What teachers say of views: the programs that draw a view, show it and label it.

A stored view is shown again by the same ``show``, so that it is what was labelled, to the bit; a
student's step has ``views.apply`` inside a larger program, the same to rounding.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax

from jdd.augment import views
from jdd.nets import Net

Tree = Any


@lru_cache(maxsize=32)
def drawer(spec: views.Spec, batch: int, shape: tuple[int, int]) -> Any:
    """Return the compiled ``f(key) -> View`` of ``batch`` images of ``shape`` (h, w)."""
    return jax.jit(lambda key: views.draw(key, batch, shape, spec))


@jax.jit
def show(images: jax.Array, index: jax.Array, view: views.View) -> jax.Array:
    """Return the views ``[b, h, w, c]`` of those images ``[n, h, w, c]`` that ``index`` names."""
    return views.apply(images[index], view)


@lru_cache(maxsize=32)
def speaker(net: Net, bn: str) -> Any:
    """Return the compiled ``f(variables, x [b, ...]) -> logits [b, classes]`` of a teacher.

    Args:
      bn: 'eval', its running statistics; 'batch', those of the views themselves, as where a script
        never leaves training mode (SRe2L's for CIFAR).
    """
    return jax.jit(lambda variables, x: net.apply(variables, x, train=bn == "batch").logits)
