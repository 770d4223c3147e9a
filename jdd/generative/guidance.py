"""Guides of the sampler: shifts that are added to z while it is denoised.

With z0_hat the estimate of a step, u = z0_hat / |z0_hat| and s_t = sqrt(1 - abar_t),

    mode               scale s_t (m - z0_hat), m the image's own mode, a centre of its class
    representativeness scale s_t |z0_hat| (c / |c| - cos(z0_hat, c) u)
                       c the centre of the class that is least similar: argmin_c cos(z0_hat, c)
    diversity          -scale s_t |z0_hat| (v / |v| - cos(z0_hat, v) u)
                       v the most similar other image of the class: argmax_v cos(z0_hat, v)

The last two are |z0_hat|^2 times the gradient of the cosine with respect to z0_hat, which turns
the estimate towards c or away from v: scales do not depend on the size of latents. A guide is 0 in
steps t < ``until`` T, where the details of an image are drawn.

Sources: mode guidance and its stop: MGD3 (Chan-Santiago et al., ICML 2025); the two similarities:
Minimax diffusion (Gu et al., CVPR 2024), eq. 5 and 7, which trains with them.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jdd.generative.diffusion import Guide, Schedule


def mode(schedule: Schedule, modes: jax.Array, scale: float, until: float = 0.5) -> Guide:
    """Return the guide that pulls each image to its own mode.

    Args:
      modes: [n, *latent], of the images in their order.
      scale: 0 turns it off; 1 moves by s_t of the whole distance.
      until: share of the schedule, counted from clean data, in which it is off.
    """

    def guide(z0: jax.Array, z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        return _factor(schedule, scale, until, t, z0) * (modes - z0)

    return guide


def representative(
    schedule: Schedule, centres: jax.Array, scale: float, until: float = 0.5
) -> Guide:
    """Return the guide that turns each image towards the least similar centre of its class.

    Args:
      centres: [classes, k, *latent].
      scale, until: as for ``mode``.
    """
    flat = _unit(centres.reshape(*centres.shape[:2], -1))

    def guide(z0: jax.Array, z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        rows = z0.reshape(len(z0), -1)
        own = flat[labels]  # [n, k, d]
        cosines = jnp.einsum("nd,nkd->nk", _unit(rows), own)
        least = cosines.argmin(1)
        towards = jnp.take_along_axis(own, least[:, None, None], 1)[:, 0]
        turned = _turned(rows, towards).reshape(z0.shape)
        return _factor(schedule, scale, until, t, z0) * turned

    return guide


def diverse(schedule: Schedule, scale: float, until: float = 0.5) -> Guide:
    """Return the guide that turns each image away from the most similar one of its class.

    Only images that are sampled together count; the only one of a class is not moved.

    Args:
      scale, until: as for ``mode``.
    """

    def guide(z0: jax.Array, z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        rows = z0.reshape(len(z0), -1)
        unit = _unit(rows)
        others = (labels[:, None] == labels[None]) & ~jnp.eye(len(labels), dtype=bool)
        cosines = jnp.where(others, unit @ unit.T, -jnp.inf)
        turned = _turned(rows, unit[cosines.argmax(1)]).reshape(z0.shape)
        turned = jnp.where(_shaped(others.any(1), z0), turned, 0)
        return -_factor(schedule, scale, until, t, z0) * turned

    return guide


def together(*guides: Guide) -> Guide | None:
    """Return the sum of guides; None for none, which costs the sampler nothing."""
    if not guides:
        return None

    def guide(z0: jax.Array, z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        total = guides[0](z0, z, t, labels)
        for other in guides[1:]:
            total = total + other(z0, z, t, labels)
        return total

    return guide


Build = Callable[[jax.Array], Guide | None]  # of the modes of the images sampled together


def build(
    schedule: Schedule,
    centres: jax.Array,
    of_mode: float = 0.0,
    of_representative: float = 0.0,
    of_diverse: float = 0.0,
    until: float = 0.5,
) -> Build:
    """Return ``modes -> guide`` of the guides whose scale is not 0.

    Args:
      centres: [classes, k, *latent].
      of_mode, of_representative, of_diverse: scales of the guides.
      until: as for ``mode``.
    """

    def made(modes: jax.Array) -> Guide | None:
        found = []
        if of_mode:
            found.append(mode(schedule, modes, of_mode, until))
        if of_representative:
            found.append(representative(schedule, centres, of_representative, until))
        if of_diverse:
            found.append(diverse(schedule, of_diverse, until))
        return together(*found)

    return made


def _shaped(values: jax.Array, like: jax.Array) -> jax.Array:
    return values.reshape(-1, *(1,) * (like.ndim - 1))


def _factor(
    schedule: Schedule, scale: float, until: float, t: jax.Array, like: jax.Array
) -> jax.Array:
    """Return scale s_t, 0 where the guides are off, shaped for products with ``like``."""
    noise = jnp.sqrt(1 - schedule.alpha_bar[t]).astype(like.dtype)
    active = t >= until * len(schedule.alpha_bar)
    return _shaped(jnp.where(active, scale * noise, 0), like)


def _unit(rows: jax.Array) -> jax.Array:
    return rows / jnp.maximum(jnp.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def _turned(rows: jax.Array, unit: jax.Array) -> jax.Array:
    """Return |x|^2 times the gradient of cos(x, v) at the rows x, of unit vectors v: [n, d]."""
    length = jnp.linalg.norm(rows, axis=-1, keepdims=True)
    own = _unit(rows)
    cosine = jnp.sum(own * unit, axis=-1, keepdims=True)
    return length * (unit - cosine * own)
