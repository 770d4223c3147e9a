"""What teachers say: the programs that draw a view, show it and label it, or label an image.

A stored view is shown again by the same ``show``, so that it is what was labelled, to the bit; a
student's step has ``views.apply`` and ``answer`` inside a larger program, the same to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax

from jdd import parallel
from jdd.augment import views
from jdd.nets import Net
from jdd.soft_labels import maps
from jdd.soft_labels.ensemble import combine

Tree = Any


@lru_cache(maxsize=32)
def drawer(spec: views.Spec, batch: int, shape: tuple[int, int]) -> Any:
    """Return the compiled ``f(key) -> View`` of ``batch`` images of ``shape`` (h, w)."""
    return jax.jit(lambda key: views.draw(key, batch, shape, spec))


@jax.jit
def show(images: jax.Array, index: jax.Array, view: views.View) -> jax.Array:
    """Return the views ``[b, h, w, c]`` of those images ``[n, h, w, c]`` that ``index`` names."""
    return views.apply(images[index], view)


def answer(
    nets: Sequence[Net], variables: Sequence[Tree], x: jax.Array, bn: str, how: str
) -> jax.Array:
    """Return the teachers' logits ``[b, classes]`` of ``x [b, ...]`` as one.

    Args:
      bn: 'eval', their running statistics; 'batch', those of ``x``, as where a script never leaves
        training mode (SRe2L's for CIFAR).
      how: one of ``committee.HOWS``; of one teacher nothing.
    """
    train = bn == "batch"
    said = [net.apply(own, x, train=train).logits for net, own in zip(nets, variables, strict=True)]
    return said[0] if len(said) == 1 else combine(said, how)


def answer_maps(
    nets: Sequence[Net], variables: Sequence[Tree], x: jax.Array, bn: str, how: str
) -> jax.Array:
    """Return the teachers' label maps ``[b, h, w, classes]`` as one, of maps of one size.

    Its mean over places is ``answer``: the arguments are those.
    """
    train = bn == "batch"
    said = [maps.answer(net, own, x, train) for net, own in zip(nets, variables, strict=True)]
    return said[0] if len(said) == 1 else combine(said, how, [z.mean((1, 2)) for z in said])


@lru_cache(maxsize=32)
def speaker(
    nets: tuple[Net, ...],
    bn: str,
    how: str = "mean",
    by_place: bool = False,
    over: tuple[jax.Device, ...] = (),
) -> Any:
    """Return the compiled ``f(variables, x)`` of ``answer``; ``by_place``: of ``answer_maps``.

    ``over``: devices that share x, each with all variables (``parallel.everywhere``).
    """
    said = answer_maps if by_place else answer

    @jax.jit
    def say(variables: Sequence[Tree], x: jax.Array) -> jax.Array:
        return said(nets, variables, parallel.shared_out(x, over), bn, how)

    return say
