"""Characteristic functions of features, their distance, and the frequencies it is taken at."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
SCALE = 300.0  # factor of the loss
SMALLEST = 1e-12  # lower bound of the phase term: the root has a derivative where sets agree
_TINY = 1e-24  # squares below this count as 0 where one divides by a length
BATCHES = 16  # frequencies a row of noise stands for in the sampling net
_SLOPE, _NORM = 0.2, 1e-5  # of LeakyReLU; added to the variance


def unit(features: jax.Array) -> jax.Array:
    """Return every row divided by its L2 norm, ``[n, d]``; a row of zeros stays."""
    squares = jnp.sum(jnp.square(features), -1, keepdims=True)
    return features * jax.lax.rsqrt(jnp.maximum(squares, jnp.asarray(_TINY, features.dtype)))


def characteristic(
    features: jax.Array, frequencies: jax.Array, weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Return real and imaginary part of phi(t) = sum_i w_i exp(i <t, f_i>), each ``[K]``.

    Args:
      features: f, ``[n, d]``.
      frequencies: t, ``[K, d]``.
      weight: w, ``[n]``, summing to 1; None: 1/n each. A row of weight 0 is padding.

    Source: NCFM (Wang et al., CVPR 2025), section 3.
    """
    phase = features @ frequencies.T
    if weight is None:
        return jnp.mean(jnp.cos(phase), 0), jnp.mean(jnp.sin(phase), 0)
    return weight @ jnp.cos(phase), weight @ jnp.sin(phase)


def distance(
    real: tuple[jax.Array, jax.Array],
    synthetic: tuple[jax.Array, jax.Array],
    alpha: float = 0.5,
    beta: float = 0.5,
) -> jax.Array:
    """Return the distance of two characteristic functions by amplitude and by phase.

        amplitude = (|phi_r| - |phi_s|)^2
        phase = 2 (|phi_r| |phi_s| - Re phi_r Re phi_s - Im phi_r Im phi_s), at least 1e-12
        loss = 300 mean_t sqrt(alpha amplitude + beta phase)

    amplitude + phase = |phi_r - phi_s|^2, so with alpha = beta = 1/2 the loss is 300 / sqrt(2)
    times the mean modulus of the difference. The phase is computed as |phi_r - phi_s|^2 -
    amplitude, which has no cancellation where the two agree. Of equal sets the loss is
    300 sqrt(beta 1e-12).

    Args:
      real, synthetic: real and imaginary parts, ``[K]``, from ``characteristic``.
      alpha, beta: weights of the two terms; beta above 0.

    Returns:
      A scalar.

    Source: NCFM (Wang et al., CVPR 2025), equation of the neural characteristic function
    discrepancy, with the authors' factor.
    """
    apart = jnp.square(real[0] - synthetic[0]) + jnp.square(real[1] - synthetic[1])
    amplitude = jnp.square(_modulus(real) - _modulus(synthetic))
    phase = jnp.maximum(apart - amplitude, jnp.asarray(SMALLEST, apart.dtype))
    return SCALE * jnp.mean(jnp.sqrt(alpha * amplitude + beta * phase))


def _modulus(phi: tuple[jax.Array, jax.Array]) -> jax.Array:
    squares = jnp.square(phi[0]) + jnp.square(phi[1])
    return jnp.sqrt(jnp.maximum(squares, jnp.asarray(_TINY, squares.dtype)))


def sampling_net(key: jax.Array, d: int) -> Tree:
    """Return the parameters of the net that turns noise into frequencies: 3 layers, ``[d, d]``.

    Weights and biases are U(-1/sqrt(d), 1/sqrt(d)), as PyTorch's; scales are 1, shifts 0.
    """
    layers, bound = [], 1 / math.sqrt(d)
    for one in jax.random.split(key, 3):
        kernel, bias = jax.random.split(one)
        layers.append({
            "kernel": jax.random.uniform(kernel, (d, d), jnp.float32, -bound, bound),
            "bias": jax.random.uniform(bias, (d,), jnp.float32, -bound, bound),
            "scale": jnp.ones((d,)),
            "shift": jnp.zeros((d,)),
        })  # fmt: skip
    return layers


def frequencies(key: jax.Array, count: int, d: int, dtype: Any, net: Tree = None) -> jax.Array:
    """Draw frequencies: N(0, 1) in every entry, or by the sampling net.

        t = z                                        without a net, z ~ N(0, 1), [count, d]
        t = tanh(B3 leaky(B2 leaky(B1 z)))           with it, z ~ N(0, 1), [count // 16, d]

    B is a linear layer followed by batch normalisation by the batch's own statistics; leaky has
    slope 0.2. The authors repeat every row 16 times; the mean over frequencies is the same without.

    Args:
      key: of the noise.
      count: the number of frequencies; with a net 32 or more.
      d: the length of a feature.
      dtype: of the result.
      net: the parameters of ``sampling_net``; None for normal frequencies.

    Returns:
      ``[count, d]``, or ``[count // 16, d]``.
    """
    if net is None:
        return jax.random.normal(key, (count, d), dtype)
    x = jax.random.normal(key, (count // BATCHES, d), dtype)
    for i, layer in enumerate(net):
        x = x @ layer["kernel"].astype(dtype) + layer["bias"].astype(dtype)[None]
        x = x - jnp.mean(x, 0, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), 0, keepdims=True) + _NORM)
        x = x * layer["scale"].astype(dtype)[None] + layer["shift"].astype(dtype)[None]
        x = jnp.tanh(x) if i == 2 else jnp.where(x > 0, x, _SLOPE * x)
    return x
