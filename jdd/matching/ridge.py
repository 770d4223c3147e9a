"""Kernel ridge regression on features: training the last layer to the end, in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

RIDGE = 1e-6


def predict(
    known: jax.Array, labels: jax.Array, asked: jax.Array, ridge: float = RIDGE
) -> tuple[jax.Array, jax.Array]:
    """Return what ridge regression on some features says of others, and the ridge it took.

        K = F F^T,   K_t = F_t F^T,   prediction = K_t (K + ridge tr(K)/n I)^-1 Y

    Solved by Cholesky's factorisation in the arguments' own precision; where that breaks down (in
    float32 with more images than features, say), by the smallest of 10, 100, ... times ``ridge``
    with which it does not.

    Args:
      known: features F ``[n, d]`` of the images that are learned from.
      labels: their targets Y ``[n, classes]``.
      asked: features F_t ``[m, d]``.
      ridge: the regulariser, in units of the mean diagonal entry of K.

    Returns:
      ``[m, classes]``; scalar, ``ridge`` or the multiple of it that was needed.

    Source: FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022), section 3; KIP (Nguyen et al., 2021).
    """
    n = known.shape[0]
    kernel = known @ known.T
    unit = (jnp.trace(kernel) / n) * jnp.eye(n, dtype=kernel.dtype)
    weight = _enough(*jax.lax.stop_gradient((kernel, unit)), ridge)
    solved = cho_solve(cho_factor(kernel + weight * unit, lower=True), labels)
    return (asked @ known.T) @ solved, weight


def _enough(kernel: jax.Array, unit: jax.Array, ridge: float) -> jax.Array:
    """Return the smallest ridge 10^k ``ridge``, up to 1, that leaves the kernel definite."""

    def broken(weight: jax.Array) -> jax.Array:
        lower = jnp.linalg.cholesky(kernel + weight * unit, symmetrize_input=False)
        return (weight < 1) & ~jnp.all(jnp.isfinite(lower))

    return jax.lax.while_loop(broken, lambda weight: 10 * weight, jnp.asarray(ridge, kernel.dtype))


def label_margin(labels: jax.Array, most: float) -> jax.Array:
    """Return mean_j -min(a_j - b_j, most), a_j and b_j the two largest entries of label j.

    It keeps a learned label's first class ahead of its second, by ``most`` at the least; beyond
    that it has no gradient.

    Args:
      labels: ``[n, classes]``, two classes or more.
      most: FRePo takes 1 / classes.
    """
    first, second = jnp.moveaxis(jax.lax.top_k(labels, 2)[0], -1, 0)
    return -jnp.mean(jnp.minimum(first - second, most))
