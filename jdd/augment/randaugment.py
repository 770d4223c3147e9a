"""RandAugment: a few random operations on 8-bit pixels of each image, as torchvision has them.

Each of ``count`` times one of ``OPS`` is drawn for each image, with a strength that follows from
``magnitude`` (of 30), and for half of the images the other sign. Pixels are whole numbers 0 .. 255
before and after each operation, and moved images show black outside, with the nearest pixel.

Source: RandAugment (Cubuk, Zoph, Shlens & Le, NeurIPS 2020); operations, strengths and the defaults
of 2 and 9 are torchvision's.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jdd.errors import BadInput

# Stored views index them.
OPS = (
    "identity", "shear_x", "shear_y", "translate_x", "translate_y", "rotate", "brightness", "color",
    "contrast", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
)  # fmt: skip
SIGNED = OPS[1:10]
BINS = 30  # magnitudes 0 .. 30
CHANNELS = (1, 3)
_GREY = (19595, 38470, 7471)  # / 65536: weights of red, green, blue, as PIL's


class Pixels(NamedTuple):
    """How images stand for pixels, x = (p - mean) / std, per channel; hashable."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Normalisation(Protocol):
    """Mean and deviation of pixels by channel, ``[c]`` each, such as ``data.Transform``."""

    @property
    def mean(self) -> np.ndarray:
        """The mean."""
        ...

    @property
    def std(self) -> np.ndarray:
        """The deviation."""
        ...


def of(transform: Normalisation) -> Pixels:
    """Return how normalised images stand for pixels."""
    mean, std = (tuple(map(float, a)) for a in (transform.mean, transform.std))
    return Pixels(mean, std)


def strengths(magnitude: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the strength of each of ``OPS``, ``[14]``, for images of ``shape`` (h, w).

    Shears in pixels per pixel; shifts in pixels; rotations in degrees; brightness, colour, contrast
    and sharpness as f - 1 of the factor f; posterize in bits; solarize a threshold.
    """
    h, w = shape[:2]
    part = magnitude / BINS
    found = {
        "shear_x": 0.3 * part, "shear_y": 0.3 * part,
        "translate_x": math.trunc(150 / 331 * w * part),
        "translate_y": math.trunc(150 / 331 * h * part),
        "rotate": 30 * part, **dict.fromkeys(OPS[6:10], 0.9 * part),
        "posterize": 8 - round(magnitude / (BINS / 4)), "solarize": 255 * (1 - part),
    }  # fmt: skip
    return np.array([found.get(name, 0.0) for name in OPS], np.float32)


def draw(
    key: jax.Array, n: int, shape: tuple[int, ...], count: int, magnitude: int
) -> tuple[jax.Array, jax.Array]:
    """Draw ``count`` operations for each of ``n`` images.

    Returns:
      Their places in ``OPS``, int32 ``[n, count]``, and signed strengths, float32 ``[n, count]``.
    """
    u = jax.random.uniform(key, (n, count, 2), jnp.float32)
    ops = jnp.floor(u[..., 0] * len(OPS)).astype(jnp.int32)
    signed = jnp.asarray([name in SIGNED for name in OPS])
    sign = jnp.where(signed[ops] & (u[..., 1] < 0.5), -1.0, 1.0)
    return ops, sign * jnp.asarray(strengths(magnitude, shape))[ops]


def shown(images: jax.Array, ops: jax.Array, strength: jax.Array, pixels: Pixels) -> jax.Array:
    """Return images of a net's input space after their operations, ``[n, h, w, c]``.

    Args:
      images: [n, h, w, c], rounded to 8-bit pixels first.
      ops, strength: as from ``draw``.
      pixels: how the images stand for pixels.
    """
    mean, std = (jnp.asarray(a, jnp.float32)[None, None, None] for a in pixels)
    found = jnp.round((images * std + mean) * 255)
    moved = apply(jnp.clip(found, 0, 255).astype(jnp.int32), ops, strength)
    return ((moved / 255 - mean) / std).astype(images.dtype)


def apply(pixels: jax.Array, ops: jax.Array, strength: jax.Array) -> jax.Array:
    """Apply each image's operations in turn to pixels, int32 ``[n, h, w, c]``, 0 .. 255."""
    for i in range(ops.shape[1]):
        pixels = _one(pixels, ops[:, i], strength[:, i])
    return pixels


def validate(channels: int) -> None:
    """Refuse images that are neither grey nor RGB.

    Raises:
      BadInput: naming the key.
    """
    if channels not in CHANNELS:
        found = f"on, of images of {channels} channels"
        raise BadInput("config.relabel.randaugment", found, "0, or images of 1 or 3 channels")


def _one(x: jax.Array, op: jax.Array, s: jax.Array) -> jax.Array:
    """Apply one operation to each image: every operation's result, and the choice of one."""
    factor = (1 + s)[:, None, None, None]
    grey = _grey(x)
    middle = jnp.floor(grey.mean((1, 2, 3), keepdims=True, dtype=jnp.float32) + 0.5)
    low = {
        "brightness": jnp.zeros_like(x), "color": jnp.broadcast_to(grey, x.shape),
        "contrast": jnp.broadcast_to(middle.astype(jnp.int32), x.shape), "sharpness": _smooth(x),
    }  # fmt: skip
    bits, threshold = s.astype(jnp.int32)[:, None, None, None], s[:, None, None, None]
    results = {name: _blend(other, x, factor) for name, other in low.items()}
    results |= {
        "posterize": x & ~((1 << (8 - bits)) - 1),
        "solarize": jnp.where(x >= threshold, 255 - x, x),
        "autocontrast": _stretched(x),
        "equalize": _equalised(x),
    }
    out = _moved(x, op, s)
    for name, found in results.items():
        out = jnp.where((op == OPS.index(name))[:, None, None, None], found, out)
    return out


def _moved(x: jax.Array, op: jax.Array, s: jax.Array) -> jax.Array:
    """Shear, shift or turn each image whose operation that is; the others stay as they are.

    A pixel (r, c) shows the one that holds the place, from the corner,
    [a (c + 1/2) + b (r + 1/2) + e,  d (c + 1/2) + f (r + 1/2) + g].
    """
    n, h, w, _ = x.shape
    is_op = {name: op == i for i, name in enumerate(OPS)}
    turn = jnp.where(is_op["rotate"], -jnp.deg2rad(s), 0.0)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    b = jnp.where(is_op["shear_x"], s, sin)
    d = jnp.where(is_op["shear_y"], s, -sin)
    e = jnp.where(is_op["rotate"], w / 2 - cos * (w / 2) - sin * (h / 2), 0.0)
    e = jnp.where(is_op["translate_x"], -s, e)
    g = jnp.where(is_op["rotate"], h / 2 + sin * (w / 2) - cos * (h / 2), 0.0)
    g = jnp.where(is_op["translate_y"], -s, g)
    rows, cols = jnp.arange(h)[None, :, None] + 0.5, jnp.arange(w)[None, None] + 0.5
    cos, b, d, e, g = (a[:, None, None] for a in (cos, b, d, e, g))
    col = jnp.floor(cos * cols + b * rows + e).astype(jnp.int32)
    row = jnp.floor(d * cols + cos * rows + g).astype(jnp.int32)
    inside = (row >= 0) & (row < h) & (col >= 0) & (col < w)
    place = jnp.where(inside, row * w + col, 0).reshape(n, h * w, 1)
    found = jnp.take_along_axis(x.reshape(n, h * w, -1), place, axis=1).reshape(x.shape)
    return jnp.where(inside[..., None], found, 0)


def _blend(low: jax.Array, x: jax.Array, factor: jax.Array) -> jax.Array:
    """Return low + factor (x - low), cut off to whole numbers 0 .. 255."""
    mixed = low + factor * (x - low).astype(jnp.float32)
    return jnp.clip(mixed, 0, 255).astype(jnp.int32)


def _grey(x: jax.Array) -> jax.Array:
    """Return the luminance, [n, h, w, 1]."""
    if x.shape[-1] == 1:
        return x
    weights = jnp.asarray(_GREY, jnp.int32)[None, None, None]
    return (jnp.sum(x * weights, axis=-1, keepdims=True) + 0x8000) >> 16


def _smooth(x: jax.Array) -> jax.Array:
    """Return each pixel's mean with its eight neighbours, itself five times; the rim is kept."""
    h, w = x.shape[1:3]
    total = 4 * x[:, 1:-1, 1:-1]
    for i in range(3):
        for j in range(3):
            total = total + x[:, i : h - 2 + i, j : w - 2 + j]
    # Rounded: (2 t + 13) // 26 = floor(t / 13 + 1/2).
    return x.at[:, 1:-1, 1:-1].set((2 * total + 13) // 26)


def _stretched(x: jax.Array) -> jax.Array:
    """Stretch each channel to 0 .. 255; one of a single value stays."""
    low, high = (f(x, axis=(1, 2), keepdims=True) for f in (jnp.min, jnp.max))
    spread = jnp.maximum(high - low, 1)
    return jnp.where(high > low, (x - low) * 255 // spread, x)


def _equalised(x: jax.Array) -> jax.Array:
    """Flatten each channel's histogram, as PIL does; one of too few pixels stays."""
    n, h, w, c = x.shape
    flat = jnp.moveaxis(x, -1, 1).reshape(n * c, h * w)
    rows = jnp.arange(n * c)[:, None]
    counts = jnp.zeros((n * c, 256), jnp.int32).at[rows, flat].add(1)
    step = (h * w - jnp.take_along_axis(counts, flat.max(1, keepdims=True), 1)) // 255
    before = jnp.cumsum(counts, axis=1) - counts
    table = jnp.clip((step // 2 + before) // jnp.maximum(step, 1), 0, 255)
    found = jnp.where(step > 0, jnp.take_along_axis(table, flat, 1), flat)
    return jnp.moveaxis(found.reshape(n, c, h, w), 1, -1)
