"""Labelling by teachers: programs that draw views, apply them and compute their logits.

A stored view is applied again by the same ``show``, so its pixels equal the labelled ones bit for
bit; a student's step has ``views.apply`` and ``answer`` inside a larger program, equal up to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import jax

from jdd import parallel
from jdd.augment import randaugment, views
from jdd.nets import Net, Output
from jdd.soft_labels import maps
from jdd.soft_labels.ensemble import combine

Tree = Any


@lru_cache(maxsize=32)
def drawer(spec: views.Spec, batch: int, shape: tuple[int, int]) -> Any:
    """Return the compiled ``f(key) -> View`` of ``batch`` images of ``shape`` (h, w)."""
    return jax.jit(lambda key: views.draw(key, batch, shape, spec))


@partial(jax.jit, static_argnums=3)
def show(
    images: jax.Array, index: jax.Array, view: views.View, pixels: randaugment.Pixels | None = None
) -> jax.Array:
    """Return the views ``[b, h, w, c]`` of the images ``[n, h, w, c]`` at ``index`` [b].

    ``pixels``: as for ``views.apply``.
    """
    return views.apply(images[index], view, pixels=pixels)


def answer(
    nets: Sequence[Net], variables: Sequence[Tree], x: jax.Array, bn: str, how: str
) -> jax.Array:
    """Return the combined logits ``[b, classes]`` of the teachers for ``x [b, h, w, c]``.

    Args:
      nets, variables: the teachers.
      x: images in the nets' input space.
      bn: batch norms use 'eval', their running statistics, or 'batch', those of ``x``, as in code
        that never leaves training mode (SRe2L's for CIFAR).
      how: one of ``ensemble.HOWS``; ignored for a single teacher.
    """
    train, pairs = bn == "batch", zip(nets, variables, strict=True)
    logits = [net.apply(own, x, train=train).logits for net, own in pairs]
    return logits[0] if len(logits) == 1 else combine(logits, how)


def outputs(
    pairs: Iterable[tuple[Net, Tree]], x: jax.Array, bn: str, taps: bool = False
) -> list[Output]:
    """Return each teacher's output for ``x [b, h, w, c]``; ``taps``: with its blocks' outputs.

    ``pairs`` are nets with their variables; ``bn`` as for ``answer``.
    """
    return [net.apply(own, x, train=bn == "batch", taps=taps) for net, own in pairs]


def answer_maps(
    nets: Sequence[Net], variables: Sequence[Tree], x: jax.Array, bn: str, how: str
) -> jax.Array:
    """Return the combined label map ``[b, h, w, classes]`` of teachers with maps of one size.

    Its mean over places is ``answer`` of the same arguments.
    """
    train = bn == "batch"
    found = [maps.answer(net, own, x, train) for net, own in zip(nets, variables, strict=True)]
    return found[0] if len(found) == 1 else combine(found, how, [z.mean((1, 2)) for z in found])


@lru_cache(maxsize=32)
def compiled_answer(
    nets: tuple[Net, ...],
    bn: str,
    how: str = "mean",
    by_place: bool = False,
    over: tuple[jax.Device, ...] = (),
) -> Any:
    """Return the compiled ``f(variables, x)`` of ``answer``; ``by_place``: of ``answer_maps``.

    ``over``: devices that share x, each with all variables (``parallel.everywhere``).
    """
    labelled = answer_maps if by_place else answer

    @jax.jit
    def program(variables: Sequence[Tree], x: jax.Array) -> jax.Array:
        return labelled(nets, variables, parallel.shared_out(x, over), bn, how)

    return program
