"""Distribution matching: the distance between mean embeddings."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def mean_distance(real: jax.Array, synthetic: jax.Array) -> jax.Array:
    """Return || real - synthetic ||^2 summed over features, and over classes if there are any.

    Args:
      real, synthetic: mean embeddings, ``[d]`` or ``[classes, d]``.

    Source: DM (Zhao & Bilen, WACV 2023), section 3 (summed over features, not averaged).
    """
    return jnp.sum(jnp.square(real - synthetic))


def weighted_mean(features: jax.Array, weight: jax.Array) -> jax.Array:
    """Return sum_i weight_i features_i, ``[..., n, d]`` and ``[..., n]`` to ``[..., d]``.

    The weights of a set sum to 1; a row of weight 0 is padding.
    """
    return jnp.einsum("...n,...nd->...d", weight, features)
