"""Computations over parts of a batch, one part after another: memory is that of one part."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def cut(rows: Tree, size: int) -> tuple[Tree, int]:
    """Cut every array ``[n, ...]`` into parts ``[n / size, size, ...]``; also return their number.

    ``size`` must divide n.
    """
    count = jax.tree.leaves(rows)[0].shape[0] // size
    return jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), rows), count


def each(fn: Callable[[Tree], jax.Array], rows: Tree, size: int) -> jax.Array:
    """Return ``fn`` of the rows, ``size`` rows at a time, joined along axis 0."""
    parts, count = cut(rows, size)
    if count == 1:
        return fn(rows)
    found = jax.lax.map(fn, parts)
    return found.reshape(-1, *found.shape[2:])


def zeros(like: Tree) -> Tree:
    """Return zeros of the shapes and types of ``like``, arrays or shapes."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)


def summed(
    fn: Callable[[Any, Tree], tuple[Tree, Tree]], zero: Tree, lo: Any, hi: Any, state: Tree = ()
) -> tuple[Tree, Tree]:
    """Return ``zero`` + sum of x_i over i = lo, ..., hi - 1 in this order, and the last state.

    The sum starts at zero, not at the first term, so that a term's program is compiled once.

    Args:
      fn: ``(i, state) -> (x_i, state)``.
      zero: zeros like a term, from ``zeros``.
      lo, hi: may be traced.
      state: what a term passes on to the next one.
    """

    def add(i: jax.Array, at: tuple[Tree, Tree]) -> tuple[Tree, Tree]:
        one, after = fn(i, at[1])
        return jax.tree.map(jnp.add, at[0], one), after

    done: tuple[Tree, Tree] = jax.lax.fori_loop(lo, hi, add, (zero, state))
    return done
