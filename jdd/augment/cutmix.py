"""CutMix: a box of another image, and labels mixed by its area (Yun et al., ICCV 2019)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.augment.views import cutmix_patch


def mixed(
    key: jax.Array, images: jax.Array, targets: jax.Array, chance: float
) -> tuple[jax.Array, jax.Array]:
    """Return a batch after CutMix with probability ``chance``, else unchanged.

    One lambda ~ U(0, 1), one box and one permutation for the batch. With s the share of the pixels
    in the box, targets become (1 - s) y + s y_partner.

    Args:
      key: PRNG key of all draws.
      images: [n, h, w, c].
      targets: [n, classes].

    Source: CutMix, algorithm A1, with beta = 1.
    """
    n, h, w, _ = images.shape
    order, place = jax.random.split(key)
    u = jax.random.uniform(place, (4,))
    top, bottom, left, right = cutmix_patch(u[2], u[:2], h, w)
    rows, cols = jnp.arange(h), jnp.arange(w)
    inside = ((rows >= top) & (rows < bottom))[:, None] & ((cols >= left) & (cols < right))[None]
    inside = inside & (u[3] < chance)
    partner, share = jax.random.permutation(order, n), jnp.mean(inside)
    shown = jnp.where(inside[None, :, :, None], images[partner], images)
    return shown, (1 - share) * targets + share * targets[partner]
