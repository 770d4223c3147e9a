"""What the nets of generative priors do to maps: padding, repetition, group normalisation."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jdd.nets.base import declared, wide
from jdd.nets.norm import EPS

LEAST = 16  # numbers in a group


def padded_side(side: int, multiple: int) -> int:
    """Return ``side`` rounded up to a multiple."""
    return -(-side // multiple) * multiple


def padded(x: jax.Array, multiple: int) -> jax.Array:
    """Pad [n, h, w, c] with zeros, half on each side, to multiples of ``multiple``."""
    extra = [padded_side(side, multiple) - side for side in x.shape[1:3]]
    if not any(extra):
        return x
    return jnp.pad(x, ((0, 0), *((e // 2, e - e // 2) for e in extra), (0, 0)))


def cropped(x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Undo ``padded``: return the middle (h, w) = ``shape[:2]`` of [n, h', w', c]."""
    top, left = ((have - want) // 2 for have, want in zip(x.shape[1:3], shape[:2], strict=True))
    return x[:, top : top + shape[0], left : left + shape[1]]


def repeated(x: jax.Array) -> jax.Array:
    """Repeat each place 2x2: [n, h, w, c] -> [n, 2 h, 2 w, c]."""
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (n, h, 2, w, 2, c)).reshape(
        n, 2 * h, 2 * w, c
    )


class GroupNorm(nn.Module):
    """Normalise each image over space and groups of channels, then scale and shift by channel.

    ``groups_of`` gives their number. Sums run over space first, the axes that leave whole rows of
    channels: XLA's CPU code for one sum over space and a group's channels takes longer.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        scale = self.param("scale", declared, (c,))
        bias = self.param("bias", declared, (c,))
        return standardised(x) * wide(scale, x) + wide(bias, x)


def groups_of(h: int, w: int, c: int) -> int:
    """Return the number of groups: 8, 4, 2 or 1, the most of at least 16 numbers of c / groups.

    The normalisation of a group of one number would leave nothing of it.
    """
    fit = (g for g in (8, 4, 2) if c % g == 0 and h * w * c // g >= LEAST)
    return next(fit, 1)


def standardised(x: jax.Array) -> jax.Array:
    """Return x with mean 0 and variance 1 over space and each group of channels."""
    centred = x - _group_mean(x)
    return centred * lax.rsqrt(_group_mean(centred * centred) + EPS)


def _group_mean(x: jax.Array) -> jax.Array:
    """Return the mean over space and a channel's group, [n, 1, 1, c]."""
    n, h, w, c = x.shape
    groups = groups_of(h, w, c)
    means = x.mean((1, 2)).reshape(n, groups, c // groups).mean(2, keepdims=True)
    return jnp.broadcast_to(means, (n, groups, c // groups)).reshape(n, 1, 1, c)
