"""Normalisation layers with accurate second derivatives.

The variance is the mean of squared deviations (two passes): the one-pass form E[x^2] - E[x]^2 loses
digits in float32, visibly so in second derivatives. eps is 1e-5 everywhere, as in PyTorch.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jdd.nets.base import declared, tap, wide
from jdd.nets.conv import TooSmall

EPS = 1e-5
NORMS = ("instance", "batch", "group", "layer", "none")


def standardise(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Subtract the mean and divide by the standard deviation over ``axes`` (biased, eps 1e-5)."""
    centred = x - x.mean(axes, keepdims=True)
    return centred * lax.rsqrt((centred * centred).mean(axes, keepdims=True) + EPS)


class GroupNorm(nn.Module):
    """Normalise each image over space and groups of channels, then scale and shift by channel.

    ``groups=0`` is one group per channel: instance normalisation.
    """

    groups: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        tap(self, "input", x)
        n, h, w, c = x.shape
        if self.groups:
            y = standardise(x.reshape(n, h, w, self.groups, c // self.groups), (1, 2, 4))
            y = y.reshape(x.shape)
        elif h * w == 1:
            raise TooSmall("instance normalisation of a map of 1x1 leaves nothing of the image")
        else:
            y = standardise(x, (1, 2))
        return _affine(self, y, (c,))


class LayerNorm(nn.Module):
    """Normalise each image over space and channels; scale and shift have the shape (h, w, c)."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        tap(self, "input", x)
        return _affine(self, standardise(x, (1, 2, 3)), x.shape[1:])


class BatchNorm(nn.Module):
    """PyTorch's batch norm: biased variance to normalise, unbiased in the running average (0.1).

    ``momentum`` is the weight of a step's own statistics in the running average; flax's is 1 minus
    that.
    """

    momentum: float = 0.1
    unbiased: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        tap(self, "input", x)
        c = x.shape[-1]
        mean = self.variable("batch_stats", "mean", jnp.zeros, (c,))
        var = self.variable("batch_stats", "var", jnp.zeros, (c,))
        if not train:
            y = (x - wide(mean.value, x)) * wide(lax.rsqrt(var.value + EPS), x)
            return _affine(self, y, (c,))
        count = x.size // c
        batch_mean = x.mean((0, 1, 2))
        centred = x - wide(batch_mean, x)
        batch_var = (centred * centred).mean((0, 1, 2))
        if not self.is_initializing():
            spread = batch_var * (count / max(count - 1, 1)) if self.unbiased else batch_var
            mean.value = (1 - self.momentum) * mean.value + self.momentum * batch_mean
            var.value = (1 - self.momentum) * var.value + self.momentum * spread
        return _affine(self, centred * wide(lax.rsqrt(batch_var + EPS), x), (c,))


class Identity(nn.Module):
    """No normalisation."""

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        del train
        tap(self, "input", x)
        return x


def _affine(module: nn.Module, y: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    scale = module.param("scale", declared, shape)
    bias = module.param("bias", declared, shape)
    return y * wide(scale, y) + wide(bias, y)


def norm(kind: str, name: str) -> nn.Module:
    """Return the normalisation called ``kind`` ("group" has 4 groups), under the name ``name``."""
    if kind == "instance":
        return GroupNorm(name=name)
    if kind == "group":
        return GroupNorm(groups=4, name=name)
    if kind == "layer":
        return LayerNorm(name=name)
    if kind == "batch":
        return BatchNorm(name=name)
    return Identity(name=name)
