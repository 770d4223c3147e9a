"""U-Net: predicts the noise of z_t from z_t, its time and its class.

    time:   sin and cos of 1000 t / T at frequencies 10000^-i/k, two linear layers, plus a vector of
            the class ("no class" has its own)
    block:  norm, swish, Conv3x3, norm scaled and shifted by the time, swish, Conv3x3, plus the
            input
    levels: one block and 2x2 means down; two blocks around attention at the bottom; each place
            repeated 2x2, joined to the map of the way down, and one block up

Level l has ``width 2^l`` channels, at most ``2 width``. Maps are padded with zeros inside to a
multiple of ``2^(levels - 1)``. On maps of one place all kernels have size 1: the net is dense.
The last layer of each block and of the net starts at 0, so that the first prediction is 0.

Sources: Ho, Jain & Abbeel, NeurIPS 2020, appendix B; Dhariwal & Nichol, NeurIPS 2021, section 3
(scale and shift by the time).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets.autoencoder import conv3x3
from jdd.nets.base import Conv, Dense, draw
from jdd.nets.conv import avg_pool
from jdd.nets.maps import GroupNorm, cropped, padded, repeated, standardised

Tree = Any
PERIOD = 10_000.0


class Denoiser(NamedTuple):
    """A predictor of noise as pure functions.

    Fields:
      init: ``key -> params``.
      apply: ``(params, z_t [n, h, w, c], t int [n], labels int [n]) -> eps [n, h, w, c]``; the
        label ``classes``, or one below 0, is "no class".
    """

    init: Callable[[jax.Array], Tree]
    apply: Callable[[Tree, jax.Array, jax.Array, jax.Array], jax.Array]


def time_features(t: jax.Array, size: int, dtype: Any = jnp.float32) -> jax.Array:
    """Return [cos(w_i t), sin(w_i t)], w_i = 10000^(-i / k), i < k = size / 2; [n, size].

    Source: Vaswani et al. 2017, as in Ho et al. 2020.
    """
    half = size // 2
    rates = jnp.exp(-math.log(PERIOD) * jnp.arange(half, dtype=dtype) / half)
    angles = t.astype(dtype)[:, None] * rates[None, :]
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=1)


class Block(nn.Module):
    """Residual block [n, h, w, c] -> [n, h, w, features], given the time's vector [n, d]."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array) -> jax.Array:
        y = conv3x3(self.features, nn.swish(GroupNorm(name="norm1")(x)), "conv1")
        moved = Dense(2 * self.features, name="time")(time)
        scale, shift = jnp.split(moved[:, None, None, :], 2, axis=-1)
        y = conv3x3(self.features, nn.swish(standardised(y) * (1 + scale) + shift), "conv2_zero")
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, 1, 0, name="shortcut")(x)
        return x + y


class Attention(nn.Module):
    """Self-attention of one head over the places of a map, plus the input."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        y = GroupNorm(name="norm")(x).reshape(n, h * w, c)
        query, key, value = jnp.split(Dense(3 * c, name="qkv")(y.reshape(-1, c)), 3, axis=-1)
        query, key, value = (a.reshape(n, h * w, c) for a in (query, key, value))
        weights = jax.nn.softmax(jnp.einsum("nic,njc->nij", query, key) / math.sqrt(c), axis=-1)
        mixed = jnp.einsum("nij,njc->nic", weights, value)
        return x + Dense(c, name="out_zero")(mixed.reshape(-1, c)).reshape(x.shape)


class UNet(nn.Module):
    """U-Net (see the module's text)."""

    classes: int
    width: int
    levels: int
    attention: bool
    timesteps: int

    @nn.compact
    def __call__(self, z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        time = self._time(t, labels, z.dtype)
        widths = [self.width * min(2**level, 2) for level in range(self.levels)]
        y = conv3x3(self.width, padded(z, 2 ** (self.levels - 1)), "first")
        left = []
        for level, features in enumerate(widths):
            y = Block(features, name=f"down{level}")(y if level == 0 else avg_pool(y), time)
            left.append(y)
        y = Block(widths[-1], name="middle1")(y, time)
        if self.attention and y.shape[1] * y.shape[2] > 1:
            y = Attention(name="attention")(y)
        y = Block(widths[-1], name="middle2")(y, time)
        for level in reversed(range(self.levels)):
            y = jnp.concatenate([y, left[level]], axis=-1)
            y = Block(widths[level], name=f"up{level}")(y, time)
            y = repeated(y) if level else y
        y = conv3x3(z.shape[-1], nn.swish(GroupNorm(name="norm")(y)), "last_zero")
        return cropped(y, z.shape[1:])

    def _time(self, t: jax.Array, labels: jax.Array, dtype: Any) -> jax.Array:
        """Return swish of the vectors of times and classes, [n, 4 width]."""
        size = 4 * self.width
        waves = time_features(t * (1000 / self.timesteps), self.width + self.width % 2, dtype)
        time = Dense(size, name="time2")(nn.swish(Dense(size, name="time1")(waves)))
        table = Classes(self.classes, size, name="classes")()
        row = jnp.where(labels < 0, self.classes, labels)
        return nn.swish(time + table[row])


class Classes(nn.Module):
    """A vector of each class, and the last one for none: [classes + 1, size]."""

    classes: int
    size: int

    @nn.compact
    def __call__(self) -> jax.Array:
        shape = (self.classes + 1, self.size)
        table: jax.Array = self.param("kernel", nn.initializers.zeros_init(), shape)
        return table


def auto_levels(side: int) -> int:
    """Return the levels for maps of ``side``: the smallest has 4 to 8 rows; at most 4 levels."""
    return min(4, 1 + max(0, math.ceil(math.log2(side / 8))) + (side == 8)) if side > 1 else 1


def unet(
    shape: tuple[int, int, int],
    classes: int,
    width: int,
    levels: int = 0,
    attention: bool = True,
    timesteps: int = 1000,
) -> Denoiser:
    """Return the U-Net for z of ``shape`` (h, w, c).

    Args:
      width: channels of the first level.
      levels: number of map sizes (0: ``auto_levels``).
      attention: attention at the smallest maps.
      timesteps: T; the net reads 1000 t / T.
    """
    levels = levels or auto_levels(min(shape[:2]))
    module = UNet(classes, width, levels, attention, timesteps)

    def init(key: jax.Array) -> Tree:
        given = (jnp.zeros((1, *shape)), jnp.zeros(1, jnp.int32), jnp.zeros(1, jnp.int32))
        declared = jax.eval_shape(lambda: module.init(jax.random.key(0), *given))
        params = _zeroed(draw(key, declared["params"]))
        # Drawn as a layer's weights: scaled to U(-1, 1), as no sum runs over the classes.
        table = params["classes"]["kernel"] * math.sqrt(classes + 1)
        return {**params, "classes": {"kernel": table}}

    def apply(params: Tree, z: jax.Array, t: jax.Array, labels: jax.Array) -> jax.Array:
        found: Any = module.apply({"params": params}, z, t, labels)
        return found

    return Denoiser(jax.jit(init), apply)


def _zeroed(params: Tree, zero: bool = False) -> Tree:
    """Set the layers whose names end with ``_zero`` to 0."""
    if not isinstance(params, dict):
        return jnp.zeros_like(params) if zero else params
    return {name: _zeroed(own, zero or name.endswith("_zero")) for name, own in params.items()}
