"""Distribution matching: distances between mean embeddings, and between cross-covariances."""

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


def cross_covariance(left: jax.Array, right: jax.Array) -> jax.Array:
    """Return C = 1/(n - 1) sum_i (left_i - mean left) (right_i - mean right)^T, ``[d, e]``.

    Args:
      left, right: features of n pairs, ``[n, d]`` and ``[n, e]``; n is 2 or more.
    """
    first, second = (x - jnp.mean(x, axis=0, keepdims=True) for x in (left, right))
    return first.T @ second / (len(left) - 1)
