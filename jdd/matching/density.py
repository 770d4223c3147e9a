"""G-VBSM's density: how evenly the images of a class spread over directions."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np


def density(images: jax.Array, tau: float = 4.0, size: int = 32) -> jax.Array:
    """Return how uneven the spectra of the classes' Gram matrices are, summed over classes:

        X_c: [n, d], the images of class c pooled to size x size and flattened
        l_c = eigenvalues(X_c X_c^T / d)
        loss = sum_c KL( stop(softmax(l_c / tau)) || softmax(l_c) )

    A flat spectrum (n images without a common direction) has loss 0; so has a single image. The
    loss is symmetric in the eigenvalues, so equal ones have finite derivatives.

    Args:
      images: ``[classes, n, h, w, c]``, class-major.
      tau: temperature of the target's softmax; 1 gives loss 0.
      size: larger sides are pooled to this number of pixels.

    Source: G-VBSM (Shao et al., CVPR 2024), data densification. The division by d is jdd's: without
    it eigenvalues grow with the number of pixels and the softmax sees only the largest.
    """
    classes, n = images.shape[:2]
    rows = _pooled(images, size).reshape(classes, n, -1)
    rows = rows / math.sqrt(rows.shape[-1])
    # Full precision: TF32 products would move small eigenvalues by more than their size.
    gram = jnp.einsum("cid,cjd->cij", rows, rows, precision=jax.lax.Precision.HIGHEST)
    spectrum = jnp.linalg.eigvalsh(gram)
    wanted = jax.lax.stop_gradient(jax.nn.log_softmax(spectrum / tau))
    return jnp.sum(jnp.exp(wanted) * (wanted - jax.nn.log_softmax(spectrum)))


def _pooled(images: jax.Array, size: int) -> jax.Array:
    """Average ``[classes, n, h, w, c]`` down to at most ``size`` rows and columns."""
    high = jax.lax.Precision.HIGHEST
    for equation, side in (("kni...,oi->kno...", 2), ("knrj...,oj->knro...", 3)):
        if images.shape[side] > size:
            weights = jnp.asarray(_windows(images.shape[side], size), images.dtype)
            images = jnp.einsum(equation, images, weights, precision=high)
    return images


def _windows(side: int, size: int) -> np.ndarray:
    """Return ``[size, side]``: row i averages the pixels that the i-th of ``size`` equal parts of
    the side touches, floor(i side / size) to ceil((i + 1) side / size)."""
    weights = np.zeros((size, side))
    for i in range(size):
        window = slice(i * side // size, -(-(i + 1) * side // size))
        weights[i, window] = 1 / (window.stop - window.start)
    return weights
