"""Inputs of pairs by an index of images: pairs that share an image share its pixels.

    {"image": [n, ...], "text": [m, d], "of": int32 [m]}  is  m pairs (image[of[j]], text[j])

Rows, orders, batches and labels count pairs, 0 .. m - 1. Without "of" a pair has an image of its
own, and both arrays have m rows.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def indexed(inputs: Tree) -> bool:
    """Return whether inputs are pairs with an index of images."""
    return isinstance(inputs, dict) and "of" in inputs


def rows(inputs: Tree, chosen: jax.Array) -> Tree:
    """Return some rows of every array of a tree; of indexed pairs both inputs of each pair.

    Args:
      inputs: arrays ``[n, ...]``, or indexed pairs.
      chosen: int ``[b]``.
    """
    if not indexed(inputs):
        return jax.tree.map(lambda a: a[chosen], inputs)
    return {"image": inputs["image"][inputs["of"][chosen]], "text": inputs["text"][chosen]}


def whole(inputs: Tree) -> Tree:
    """Return the inputs of all rows: those given, or both inputs of every indexed pair."""
    return rows(inputs, jnp.arange(len(inputs["of"]))) if indexed(inputs) else inputs
