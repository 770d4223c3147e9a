"""Losses of the auxiliary-classifier Wasserstein GAN with gradient penalty.

With the critic's source D and class probabilities P, images x of classes y, z normal, y' uniform:

    L_G = -E[D(G(z, y))] + CE(P(G(z, y)), y)
    L_D = E[D(G(z', y'))] - E[D(x)] + CE(P(G(z', y')), y') + CE(P(x), y)
          + lambda E[(|grad D(u)| - 1)^2]
    u = e x + (1 - e) G(z', y'),  e uniform in [0, 1), one for each image

Sources: Gulrajani et al., Improved Training of Wasserstein GANs (NeurIPS 2017), equation 3; Odena
et al., Conditional Image Synthesis with Auxiliary Classifier GANs (ICML 2017), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jdd.matching.gradient import length


class CriticOutput(NamedTuple):
    """The critic's output for images: ``source`` [n] and class ``logits`` [n, classes]."""

    source: jax.Array
    logits: jax.Array


def class_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the mean cross entropy of logits [n, classes] with labels, int [n]."""
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -jnp.mean(chosen)


def generator_loss(fake: CriticOutput, labels: jax.Array) -> jax.Array:
    """Return L_G (scalar) of generated images of ``labels``."""
    return -jnp.mean(fake.source) + class_loss(fake.logits, labels)


def critic_loss(
    fake: CriticOutput, fake_labels: jax.Array, real: CriticOutput, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return L_D without its penalty, and E[D(x)] - E[D(G)], an estimate of Wasserstein's distance.

    Both are scalars.
    """
    distance = jnp.mean(real.source) - jnp.mean(fake.source)
    classes = class_loss(fake.logits, fake_labels) + class_loss(real.logits, labels)
    return classes - distance, distance


def gradient_penalty(
    source: Callable[[jax.Array], jax.Array],
    real: jax.Array,
    fake: jax.Array,
    share: jax.Array,
) -> jax.Array:
    """Return E[(|grad D(u)| - 1)^2], u = e x + (1 - e) G: the norm is over an image's pixels.

    Args:
      source: images -> D, [n]; image i may influence entry i alone.
      real, fake: images, [n, h, w, c].
      share: e, [n].

    Returns:
      Scalar; where a gradient is 0, so is the derivative of its norm.

    Source: Gulrajani et al. (NeurIPS 2017), section 4.
    """
    e = share.reshape(-1, 1, 1, 1)
    gradient = jax.grad(lambda u: jnp.sum(source(u)))(e * real + (1 - e) * fake)
    return jnp.mean(jnp.square(length(gradient.reshape(len(share), -1).T) - 1))
