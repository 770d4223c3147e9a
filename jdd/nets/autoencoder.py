"""Convolutional autoencoder with Gaussian latents: the net of the VAE.

    encoder: Conv3x3, then a stage for each level: norm, swish, Conv3x3, mean over 2x2 windows;
             norm, swish, one place's linear map to mean and log variance
    decoder: the mirror image; repetition of each place 2x2 in place of the mean

Level l has ``width 2^l`` channels, at most ``4 width``. Images are padded with zeros to a multiple
of ``2^levels``, and the decoded ones are cropped. On a map of one place a 3x3 kernel would only
read its middle: there it has size 1.

Source: Kingma & Welling, ICLR 2014, for the model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets.base import Conv, draw
from jdd.nets.conv import avg_pool
from jdd.nets.maps import GroupNorm, cropped, padded, padded_side, repeated

Tree = Any
LOWEST, HIGHEST = -20.0, 10.0  # of log variances: exp of them stays finite in float32


class Autoencoder(NamedTuple):
    """An autoencoder as pure functions.

    Fields:
      init: ``key -> {"encoder", "decoder"}``.
      encode: ``(params, x [n, h, w, c]) -> mean, log variance``, each ``[n, *latent]``; reads
        ``params["encoder"]`` alone.
      decode: ``(params, z [n, *latent]) -> x [n, h, w, c]``; reads ``params["decoder"]`` alone.
      latent: (h', w', c') of a latent.
    """

    init: Callable[[jax.Array], Tree]
    encode: Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array]]
    decode: Callable[[Tree, jax.Array], jax.Array]
    latent: tuple[int, int, int]


def conv3x3(features: int, x: jax.Array, name: str) -> jax.Array:
    """Return the 3x3 convolution of a module's map; of a map of one place its middle alone."""
    size = 1 if x.shape[1:3] == (1, 1) else 3
    return Conv(features, size, 1, size // 2, bilinear=True, name=name)(x)


def _features(width: int, level: int) -> int:
    return width * min(2**level, 4)


class Encoder(nn.Module):
    """[n, h, w, c] -> [n, h / 2^levels, w / 2^levels, 2 channels]."""

    channels: int
    width: int
    levels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = conv3x3(self.width, padded(x, 2**self.levels), "first")
        for level in range(self.levels):
            y = nn.swish(GroupNorm(name=f"norm{level}")(y))
            y = conv3x3(_features(self.width, level + 1), avg_pool(y), f"conv{level}")
        y = nn.swish(GroupNorm(name="norm")(y))
        return Conv(2 * self.channels, 1, 1, 0, name="last")(y)


class Decoder(nn.Module):
    """[n, h', w', channels] -> [n, h, w, c], the size of ``shape``."""

    shape: tuple[int, int, int]
    width: int
    levels: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        y = conv3x3(_features(self.width, self.levels), z, "first")
        for level in reversed(range(self.levels)):
            y = nn.swish(GroupNorm(name=f"norm{level}")(y))
            y = conv3x3(_features(self.width, level), repeated(y), f"conv{level}")
        y = nn.swish(GroupNorm(name="norm")(y))
        return cropped(conv3x3(self.shape[2], y, "last"), self.shape)


def autoencoder(shape: tuple[int, int, int], channels: int, width: int, levels: int) -> Autoencoder:
    """Return the autoencoder of images of ``shape``, its text in the module's.

    Args:
      shape: (h, w, c) of an image.
      channels: c', numbers at each place of a latent.
      width: channels of the first and last map.
      levels: halvings of the side; a latent has ``ceil(h / 2^levels)`` rows.
    """
    encoder, decoder = Encoder(channels, width, levels), Decoder(shape, width, levels)
    rows, columns = (padded_side(side, 2**levels) >> levels for side in shape[:2])
    latent = (rows, columns, channels)

    def declare(module: nn.Module, size: tuple[int, ...]) -> Tree:
        return jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *size))))

    def init(key: jax.Array) -> Tree:
        first, second = jax.random.split(key)
        return {
            "encoder": _drawn(first, declare(encoder, shape)),
            "decoder": _drawn(second, declare(decoder, latent)),
        }

    def encode(params: Tree, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        found: Any = encoder.apply({"params": params["encoder"]}, x)
        mean, log_variance = jnp.split(found, 2, axis=-1)
        return mean, jnp.clip(log_variance, LOWEST, HIGHEST)

    def decode(params: Tree, z: jax.Array) -> jax.Array:
        found: Any = decoder.apply({"params": params["decoder"]}, z)
        return found

    return Autoencoder(jax.jit(init), encode, decode, latent)


def _drawn(key: jax.Array, declared: Tree) -> Tree:
    return draw(key, declared["params"])
