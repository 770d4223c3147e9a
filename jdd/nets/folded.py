"""A convolution and its instance normalisation as one product, for few input channels.

With P the patches of an image, [places, d] for d = kh kw c, and K the kernel, [d, o], the
convolution is P K + b. Its mean over the places is that of P times K, plus b; its variance is a
quadratic form of the patches' covariance, [d, d]:

    Q = P - mean(P),   C = Q^T Q / places,   var_o = K_o^T C K_o
    y = Q (K scale / sqrt(var + eps)) + bias

so that neither needs a pass over [places, o], forward or backward; b cancels. With three channels d
is 27, while o is 128.

In float32 the result is as accurate as the plain form for noise and random kernels; for a kernel
that cancels most of the image (a Laplacian on a smooth one) the quadratic form loses one or two
digits, to about 1e-5.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.nets.conv import patches
from jdd.nets.norm import EPS


def conv_instance_norm(
    x: jax.Array, kernel: jax.Array, scale: jax.Array, bias: jax.Array, padding: int
) -> jax.Array:
    """Return ``scale (conv(x, kernel) - mean) / std + bias``, window by window.

    Args:
      x: images [n, h, w, c]; the output's sides must be even.
      kernel: [kh, kw, c, o].
      scale, bias: [o], of the normalisation.
      padding: zeros on each side.

    Returns:
      [n, 4, h' w' / 4, o]: axis 1 runs over the four places of a 2x2 window, axis 2 over windows.
    """
    n = x.shape[0]
    taken = patches(x, kernel.shape[0], kernel.shape[1], 1, padding)
    _, h, w, d = taken.shape
    taken = taken.reshape(n, h // 2, 2, w // 2, 2, d).transpose(0, 2, 4, 1, 3, 5)
    taken = taken.reshape(n, h * w, d)
    centred = taken - taken.mean(1, keepdims=True)
    covariance = jnp.einsum("npi,npj->nij", centred, centred) / (h * w)
    matrix = kernel.reshape(d, -1)
    variance = jnp.sum(matrix[None] * (covariance @ matrix), axis=1)  # [n, o]
    variance = jnp.where(variance < 0, 0.0, variance)  # rounding; at 0 the derivatives stay
    factor = jax.lax.rsqrt(variance + EPS) * scale[None]
    y = jnp.matmul(centred, matrix[None] * factor[:, None, :])
    return (y + bias[None, None]).reshape(n, 4, h * w // 4, -1)
