"""DC's augmentation for evaluation (Zhao et al., ICLR 2021, code).

For every image, one operation of a strategy such as ``crop_scale_rotate`` is drawn:

crop    the image is padded by 4 with the batch's mean pixel and cut out at offsets 0 .. 7;
scale   it is resized to int(u h) x int(u' w), u, u' ~ U(0.8, 1.2), nearest pixel, centred in a
        square of zeros with the largest of the four sides, and the centre of that is cut out, both
        offsets rounded down;
rotate  by whole degrees of -45 .. 44 about its centre, cubic splines; outside, the batch's mean
        over all channels. The rotated image is not cropped; then its centre is cut out, offsets
        rounded down: half a pixel off if it has grown by an odd number of pixels;
noise   N(0, 0.001^2) is added.

Only for training on a finished set: no gradient passes through it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage, special

from jdd.augment.strategy import parse

OPS = ("crop", "scale", "rotate", "noise")
CROP, SCALE, ROTATE, NOISE = 4, 0.2, 45, 0.001


def names(strategy: str) -> tuple[str, ...]:
    """Return the operations of a strategy (``strategy.parse``)."""
    return parse(strategy, OPS, "config.dc_aug")


def draw_op(key: jax.Array, strategy: str) -> jax.Array:
    """Return 0: operations are drawn for each image, by ``apply``."""
    del key, strategy
    return jnp.zeros((), jnp.int32)


def apply(
    op: jax.Array | int,
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
) -> jax.Array:
    """Augment every image, [n, h, w, c], by its own operation and parameters.

    ``op``, ``siamese`` and ``align_corners`` have no effect; they complete the common signature.
    """
    del op, siamese, align_corners
    chosen = names(strategy)
    if not chosen:
        return images
    mean = images.mean((0, 1, 2))
    draws = jax.random.split(key, 2)
    which = jax.random.randint(draws[0], (len(images),), 0, len(chosen))
    out = images
    for place, name in enumerate(chosen):
        keys = jax.random.split(jax.random.fold_in(draws[1], place), len(images))
        changed = jax.vmap(_BRANCHES[name], in_axes=(0, 0, None))(keys, images, mean)
        out = jnp.where((which == place)[:, None, None, None], changed, out)
    return out


# The operations on one image with explicit parameters.


def crop(image: jax.Array, row: jax.Array, col: jax.Array, mean: jax.Array) -> jax.Array:
    """Cut the image out of its padded self at (row, col), each 0 .. 8; ``mean`` is [c]."""
    sides = ((CROP, CROP), (CROP, CROP), (0, 0))
    # Padding is 0 and the border is the mean: the mean is subtracted before and added after.
    padded = jnp.pad(image - mean[None, None], sides)
    return jax.lax.dynamic_slice(padded, (row, col, 0), image.shape) + mean[None, None]


def scale(image: jax.Array, height: jax.Array, width: jax.Array) -> jax.Array:
    """Resize to ``height`` x ``width`` pixels (nearest), then centre in the image's own size."""
    canvas = jnp.maximum(jnp.maximum(height, width), max(image.shape[:2]))
    rows, in_rows = _resized(height, image.shape[0], canvas)
    cols, in_cols = _resized(width, image.shape[1], canvas)
    inside = (in_rows[:, None] & in_cols[None, :])[..., None]
    return jnp.where(inside, image[rows][:, cols], jnp.zeros((), image.dtype))


def _resized(size: jax.Array, full: int, canvas: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the source pixel of each place along an axis, and True where there is one."""
    place = jnp.arange(full) + (canvas - full) // 2 - (canvas - size) // 2
    source = jnp.floor(place * (full / size.astype(jnp.float32))).astype(jnp.int32)
    return jnp.clip(source, 0, full - 1), (place >= 0) & (place < size)


def rotate(image: jax.Array, degrees: jax.Array, fill: jax.Array) -> jax.Array:
    """Rotate the image by ``degrees`` (-45 .. 44), cubic B-splines; ``fill`` (a number) outside."""
    h, w, _ = image.shape
    smooth_rows, smooth_cols = (jnp.asarray(_prefilter(size), image.dtype) for size in (h, w))
    coefficients = jnp.einsum("ia,jb,abc->ijc", smooth_rows, smooth_cols, image)
    angle = degrees.astype(image.dtype) * (math.pi / 180)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    off = jnp.asarray(_off_centre(h, w), image.dtype)[degrees + ROTATE]
    i, j = (
        jnp.arange(size, dtype=image.dtype) - (size - 1) / 2 - own
        for size, own in zip((h, w), off, strict=True)
    )
    rows = cos * i[:, None] + sin * j[None, :] + (h - 1) / 2
    cols = -sin * i[:, None] + cos * j[None, :] + (w - 1) / 2
    taps = (_taps(rows, h), _taps(cols, w))
    out = jnp.zeros_like(image)
    for at_row, by_row in zip(*taps[0], strict=True):
        for at_col, by_col in zip(*taps[1], strict=True):
            out = out + (by_row * by_col)[..., None] * coefficients[at_row, at_col]
    # Rounding may place a corner that is rotated onto itself slightly outside.
    near = 1e-4
    inside = (rows >= -near) & (rows <= h - 1 + near) & (cols >= -near) & (cols <= w - 1 + near)
    return jnp.where(inside[..., None], out, fill.astype(image.dtype))


def _taps(at: jax.Array, size: int) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the four knots around each coordinate, mirrored at the ends, and their weights."""
    low = jnp.floor(at)
    t = at - low
    weights = [
        (1 - t) ** 3 / 6,
        (3 * t**3 - 6 * t**2 + 4) / 6,
        (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
        t**3 / 6,
    ]
    period = 2 * size - 2
    knots = []
    for k in range(-1, 3):
        place = jnp.mod(low.astype(jnp.int32) + k, period)
        knots.append(jnp.where(place < size, place, period - place))
    return knots, weights


@functools.cache
def _off_centre(height: int, width: int) -> np.ndarray:
    """Return the offset of the cut from a rotated image's centre, [angles, 2]: 0 or 1/2 pixel."""
    angles = np.arange(-ROTATE, ROTATE)
    cos, sin = special.cosdg(angles), np.abs(special.sindg(angles))
    grown = [
        (a * cos + b * sin + 0.5).astype(int) - a for a, b in ((height, width), (width, height))
    ]
    return np.stack(grown, 1) % 2 / 2


@functools.cache
def _prefilter(size: int) -> np.ndarray:
    """Return the map from samples to cubic B-spline coefficients along an axis, mirrored ends."""
    return ndimage.spline_filter1d(np.eye(size), 3, axis=0, mode="mirror")


def _crop(key: jax.Array, image: jax.Array, mean: jax.Array) -> jax.Array:
    row, col = jax.random.randint(key, (2,), 0, 2 * CROP)
    return crop(image, row, col, mean)


def _scale(key: jax.Array, image: jax.Array, mean: jax.Array) -> jax.Array:
    factor = jax.random.uniform(key, (2,), minval=1 - SCALE, maxval=1 + SCALE)
    height, width = (
        (f * s).astype(jnp.int32) for f, s in zip(factor, image.shape[:2], strict=True)
    )
    return scale(image, height, width)


def _rotate(key: jax.Array, image: jax.Array, mean: jax.Array) -> jax.Array:
    return rotate(image, jax.random.randint(key, (), -ROTATE, ROTATE), mean.mean())


def _noise(key: jax.Array, image: jax.Array, mean: jax.Array) -> jax.Array:
    return image + NOISE * jax.random.normal(key, image.shape, image.dtype)


_BRANCHES: dict[str, Callable[..., jax.Array]] = {
    "crop": _crop,
    "scale": _scale,
    "rotate": _rotate,
    "noise": _noise,
}
