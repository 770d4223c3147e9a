"""Kernel ridge regression on features: the last layer trained to convergence in closed form."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_factor, cho_solve

RIDGE = 1e-6


def predict(
    known: jax.Array, labels: jax.Array, queries: jax.Array, ridge: float = RIDGE
) -> tuple[jax.Array, jax.Array]:
    """Return the predictions of ridge regression, and the regulariser that was used.

        K = F F^T,   K_t = F_t F^T,   prediction = K_t (K + ridge tr(K)/n I)^-1 Y

    Solved by Cholesky factorisation in the arguments' precision; if that fails (for example in
    float32 with more images than features), with the smallest of 10, 100, ... times ``ridge`` that
    succeeds.

    Args:
      known: features F ``[n, d]`` of the training images.
      labels: their targets Y ``[n, classes]``.
      queries: features F_t ``[m, d]``.
      ridge: the regulariser, in units of the mean diagonal entry of K.

    Returns:
      Predictions ``[m, classes]``; scalar, ``ridge`` or the multiple of it that was needed.

    Source: FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022), section 3; KIP (Nguyen et al., 2021).
    """
    n = known.shape[0]
    kernel = known @ known.T
    unit = (jnp.trace(kernel) / n) * jnp.eye(n, dtype=kernel.dtype)
    weight = _enough(*jax.lax.stop_gradient((kernel, unit)), ridge)
    solved = cho_solve(cho_factor(kernel + weight * unit, lower=True), labels)
    return (queries @ known.T) @ solved, weight


def _enough(kernel: jax.Array, unit: jax.Array, ridge: float) -> jax.Array:
    """Return the smallest 10^k ``ridge``, up to 1, with which the kernel is positive definite."""

    def broken(weight: jax.Array) -> jax.Array:
        lower = jnp.linalg.cholesky(kernel + weight * unit, symmetrize_input=False)
        return (weight < 1) & ~jnp.all(jnp.isfinite(lower))

    return jax.lax.while_loop(broken, lambda weight: 10 * weight, jnp.asarray(ridge, kernel.dtype))


def label_margin(labels: jax.Array, most: float) -> jax.Array:
    """Return mean_j -min(a_j - b_j, most), a_j and b_j the two largest entries of label j.

    A penalty that drives the margin between a learned label's first and second class up to
    ``most``; beyond that its gradient is 0.

    Args:
      labels: ``[n, classes]``, at least two classes.
      most: the largest margin that counts (FRePo: 1 / classes).
    """
    first, second = jnp.moveaxis(jax.lax.top_k(labels, 2)[0], -1, 0)
    return -jnp.mean(jnp.minimum(first - second, most))
