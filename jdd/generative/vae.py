"""The objective of a variational autoencoder with Gaussian pixels.

An image x of d numbers has a latent z ~ N(0, I) and pixels N(decode(z), v I). With the encoder's
q(z | x) = N(mean, exp(log variance)) the evidence lower bound is

    ELBO = E_q log N(x; decode(z), v I) - KL(q(z | x) || N(0, I))  <=  log p(x)
    KL   = 1/2 sum_k (mean_k^2 + exp(lv_k) - 1 - lv_k)

Training minimises -v ELBO / d without its constant: the mean over pixels of half the squared error,
plus v KL / d. So v, the variance of a pixel given its latent, is the weight of the KL term, beta.

Source: Kingma & Welling, ICLR 2014, appendix B and C; beta: Higgins et al., ICLR 2017.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp


def drawn(mean: jax.Array, log_variance: jax.Array, noise: jax.Array) -> jax.Array:
    """Return z = mean + exp(log variance / 2) noise, a draw of q(z | x)."""
    return mean + jnp.exp(0.5 * log_variance) * noise


def kl(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Return KL(q(z | x) || N(0, I)) of each image, in nats, [n].

    Args:
      mean, log_variance: [n, ...].
    """
    terms = mean**2 + jnp.exp(log_variance) - 1 - log_variance
    return 0.5 * terms.reshape(len(terms), -1).sum(1)


def squared_error(x: jax.Array, decoded: jax.Array) -> jax.Array:
    """Return the sum over an image's pixels of the squared error, [n]."""
    return ((x - decoded) ** 2).reshape(len(x), -1).sum(1)


def loss(
    x: jax.Array, decoded: jax.Array, mean: jax.Array, log_variance: jax.Array, beta: float
) -> jax.Array:
    """Return -beta ELBO / d without its constant, the mean over images.

        1/d (1/2 |x - decoded|^2 + beta KL)

    Args:
      x, decoded: [n, h, w, c], d = h w c, of one draw of z.
      beta: variance of a pixel given its latent, the weight of the KL term.
    """
    size = math.prod(x.shape[1:])
    return jnp.mean(0.5 * squared_error(x, decoded) + beta * kl(mean, log_variance)) / size


def elbo(
    x: jax.Array, decoded: jax.Array, mean: jax.Array, log_variance: jax.Array, variance: float
) -> jax.Array:
    """Return the ELBO of each image for one draw of z, in nats, [n]; ``variance`` is v."""
    size = math.prod(x.shape[1:])
    fit = -0.5 * squared_error(x, decoded) / variance
    return fit - 0.5 * size * math.log(2 * math.pi * variance) - kl(mean, log_variance)
