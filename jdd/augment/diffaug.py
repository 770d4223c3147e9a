"""DSA's operations all in their order, where ``dsa`` draws one: DiM's augmentation of students."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.augment import dsa


def names(strategy: str) -> tuple[str, ...]:
    """Return the operations of a strategy (``strategy.parse``)."""
    return dsa.names(strategy)


def draw_op(key: jax.Array, strategy: str) -> jax.Array:
    """Return 0: every operation is applied."""
    del key, strategy
    return jnp.zeros((), jnp.int32)


def apply(
    op: jax.Array | int,
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
) -> jax.Array:
    """Apply every operation of the strategy to [n, h, w, c]; ``op`` has no effect."""
    del op
    return dsa.dsa(key, images, strategy, siamese, align_corners, mode="M")
