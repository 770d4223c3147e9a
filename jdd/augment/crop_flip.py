"""Augmentation of real CIFAR images: a random crop of the reflect-padded image, and a flip."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def crop_flip(key: jax.Array, images: jax.Array, border: int = 4) -> jax.Array:
    """Crop each reflect-padded image at a random place and flip it with p = 1/2.

    Args:
      key: PRNG key; offsets 0 .. 2 ``border`` and flips are drawn for each image.
      images: [n, h, w, c], h and w above ``border``.

    Returns:
      [n, h, w, c].
    """
    n, h, w, c = images.shape
    sides = ((0, 0), (border, border), (border, border), (0, 0))
    padded = jnp.pad(images, sides, mode="reflect")
    place, turn = jax.random.split(key)
    at = jax.random.randint(place, (n, 2), 0, 2 * border + 1)
    flips = jax.random.bernoulli(turn, 0.5, (n,))

    def one(image: jax.Array, at: jax.Array, flip: jax.Array) -> jax.Array:
        crop = jax.lax.dynamic_slice(image, (at[0], at[1], 0), (h, w, c))
        return jnp.where(flip, crop[:, ::-1], crop)

    return jax.vmap(one)(padded, at, flips)
