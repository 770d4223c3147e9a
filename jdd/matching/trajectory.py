"""Distance between a student's and an expert's weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Tree = Any


def squared_distance(a: Tree, b: Tree) -> jax.Array:
    """Return ||a - b||^2 over all leaves of two trees of one structure (scalar)."""
    parts = jax.tree.map(lambda x, y: jnp.sum(jnp.square(x - y)), a, b)
    return jax.tree.reduce(jnp.add, parts)


def trajectory_distance(student: Tree, target: Tree, start: Tree) -> jax.Array:
    """Return ||theta_N - theta*_{t+M}||^2 / ||theta*_t - theta*_{t+M}||^2 (scalar, no unit).

    All parameters count, biases and norm affines included; 1 is a student that did not move.

    Source: MTT (Cazenavette et al. 2022), equation 2.
    """
    return squared_distance(student, target) / squared_distance(start, target)


def branch_distance(student: Tree, target: Tree, start: Tree, merged: bool = False) -> jax.Array:
    """Return the sum over branches of each one's ``trajectory_distance`` (scalar, no unit).

    Args:
      student, target, start: dicts of trees, a tree for each branch.
      merged: one distance of all weights instead, so that branches count by how far they move.

    Source: Wu et al. (TMLR 2024), section 3.2; merged: the COCO settings of LoRS' code.
    """
    if merged:
        return trajectory_distance(student, target, start)
    parts = [trajectory_distance(student[b], target[b], start[b]) for b in sorted(student)]
    return jnp.sum(jnp.stack(parts))
