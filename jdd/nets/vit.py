"""Vision transformer (Dosovitskiy et al. 2021) with pre-normalised blocks.

    z_0 = [cls; W p_1; ...; W p_T] + e,  p_t the pixels of patch t, e learned positions
    z' = z + MSA(LN(z)),  z'' = z' + W_2 gelu(W_1 LN(z')),  logits = W_h LN(z_L)[cls]
    MSA: softmax(q k^T / sqrt(d / heads)) v of each head, then a linear layer

Modules have the names of timm's tensors (``blocks_0/attn/qkv`` is ``blocks.0.attn.qkv``).

Source: An Image is Worth 16x16 Words, ICLR 2021, equations 1 to 4; eps of LN 1e-6, exact gelu.
"""

from __future__ import annotations

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jdd.errors import BadInput
from jdd.nets.base import Dense, declared, tap, wide

EPS = 1e-6
WIDTH, DEPTH = 192, 12  # ViT-Tiny
_GROWTH = 4  # the MLP's hidden units over the width
_HEAD = 64  # channels of a head, by default


class TokenNorm(nn.Module):
    """Normalise each token over its channels, [n, t, d], then scale and shift."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        centred = x - x.mean(-1, keepdims=True)
        y = centred * lax.rsqrt((centred * centred).mean(-1, keepdims=True) + EPS)
        scale = self.param("scale", declared, (x.shape[-1],))
        return y * wide(scale, y) + wide(self.param("bias", declared, (x.shape[-1],)), y)


class PatchEmbed(nn.Module):
    """[n, h, w, c] -> [n, h w / patch^2, d], one linear map of each patch, row by row."""

    features: int
    patch: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, h, w, c = x.shape
        p, rows, cols = self.patch, h // self.patch, w // self.patch
        cut = x.reshape(n, rows, p, cols, p, c).swapaxes(2, 3).reshape(n, rows * cols, p * p * c)
        return PatchMap(self.features, p, c, name="proj")(cut)


class PatchMap(nn.Module):
    """The linear map of ``PatchEmbed``; its kernel is a convolution's, [p, p, c, d]."""

    features: int
    patch: int
    channels: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.patch, self.patch, self.channels, self.features)
        y = x @ self.param("kernel", declared, shape).reshape(-1, self.features)
        return y + wide(self.param("bias", declared, (self.features,)), y)


class Attention(nn.Module):
    """MSA of the module's text, [n, t, d] -> [n, t, d]."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n, t, d = x.shape
        qkv = Dense(3 * d, name="qkv")(x).reshape(n, t, 3, self.heads, d // self.heads)
        q, k, v = (qkv[:, :, i] for i in range(3))
        scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(d // self.heads)
        found = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores, axis=-1), v)
        return Dense(d, name="proj")(found.reshape(n, t, d))


class Mlp(nn.Module):
    """W_2 gelu(W_1 x), with four times as many units between."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = nn.gelu(Dense(_GROWTH * x.shape[-1], name="fc1")(x), approximate=False)
        return Dense(x.shape[-1], name="fc2")(y)


class Block(nn.Module):
    """One block of the module's text, [n, t, d] -> [n, t, d]."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = x + Attention(self.heads, name="attn")(TokenNorm(name="norm1")(x))
        return x + Mlp(name="mlp")(TokenNorm(name="norm2")(x))


class ViT(nn.Module):
    """Vision transformer; ``width`` d, ``depth`` blocks, ``heads``, ``patch`` pixels a side."""

    classes: int
    width: int = WIDTH
    depth: int = DEPTH
    heads: int = 3
    patch: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        del train
        x = PatchEmbed(self.width, self.patch, name="patch_embed")(x)
        first = self.param("cls_token", declared, (1, 1, self.width))
        x = jnp.concatenate([jnp.broadcast_to(first, (len(x), 1, self.width)), x], axis=1)
        place = self.param("pos_embed", declared, (1, x.shape[1], self.width))
        x = x + place
        for i in range(self.depth):
            x = Block(self.heads, name=f"blocks_{i}")(x)
            tap(self, f"block{i + 1}", x)
        features = TokenNorm(name="norm")(x)[:, 0]
        return Dense(self.classes, name="head")(features), features


def settled(shape: tuple[int, int, int], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with ``heads`` and ``patch`` set.

    The patch divides both sides: by default it is their smallest common divisor from
    max(2, side / 8) up, at most 16 if there is one, so that images have about 8 x 8 patches. Heads
    have 64 channels by default.

    Raises:
      BadInput: a patch that does not divide the image, heads that do not divide the width.
    """
    sides, width = shape[:2], int(options.get("width", WIDTH))
    common = math.gcd(*sides)
    divisors = [d for d in range(1, common + 1) if common % d == 0]
    least = max(2, min(16, min(sides) // 8))
    patch = int(options.get("patch", next((d for d in divisors if d >= least), 1)))
    if patch not in divisors or patch < 2 and min(sides) > 8:
        found = f"{patch} on images of {sides[0]}x{sides[1]}"
        whole = ", ".join(str(d) for d in divisors if d > 1)
        other = "an image size with common divisors: --config.data.size=32"
        raise BadInput("config.net.patch", found, f"one of {whole}" if whole else other)
    heads = int(options.get("heads", max(h for h in range(1, width + 1) if _even(h, width))))
    if width % heads:
        allowed = f"a divisor of net.width={width}"
        raise BadInput("config.net.heads", str(heads), allowed)
    return {**options, "patch": patch, "heads": heads}


def _even(heads: int, width: int) -> bool:
    return width % heads == 0 and heads <= max(1, width // _HEAD)
