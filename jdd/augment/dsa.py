"""Differentiable siamese augmentation (Zhao & Bilen, ICML 2021): six operations on image batches.

A *strategy* names the allowed operations, e.g. ``color_crop_cutout_flip_scale_rotate``. One call
draws one operation for the whole batch; its parameters are drawn per image, or once for all images
(siamese). Pixels outside the image are zero, the mean pixel in normalised space. Values are not
clamped. For given parameters every operation is affine in the images, so derivatives of any order
exist.
"""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jdd.augment.resample import about_centre, bilinear, separable, taps
from jdd.augment.strategy import parse
from jdd.errors import BadInput

OPS = ("color", "crop", "cutout", "flip", "scale", "rotate")
BRIGHTNESS, SATURATION, CONTRAST = 1.0, 2.0, 0.5
CROP, CUTOUT, SCALE, ROTATE = 0.125, 0.5, 1.2, 15.0


def names(strategy: str) -> tuple[str, ...]:
    """Return the operations of a strategy (``strategy.parse``)."""
    return parse(strategy, OPS, "config.data.dsa")


def draw_op(key: jax.Array, strategy: str) -> jax.Array:
    """Draw one operation uniformly: its index in the strategy, a scalar int32 (0 if empty)."""
    return jax.random.randint(key, (), 0, max(1, len(names(strategy))))


class Draw(NamedTuple):
    """The draws of a call: ``op``, an index in the strategy, and ``uniform``, [3, n] or [3, 1]."""

    op: jax.Array | int
    uniform: jax.Array


def draw(key: jax.Array, images: int, strategy: str, siamese: bool = False) -> Draw:
    """Draw operation and parameters for a batch of ``images`` images, as ``dsa`` does.

    Separate from ``augment``, so that the draws of many steps are one call of the generator.
    """
    op_key, key = jax.random.split(key)
    return Draw(draw_op(op_key, strategy), _draws(key, images, siamese))


def augment(drawn: Draw, images: jax.Array, strategy: str, align_corners: bool = True) -> jax.Array:
    """Apply a drawn operation to a batch, [n, h, w, c]; arguments as in ``apply``."""
    branches = [partial(_BRANCHES[name], align_corners=align_corners) for name in names(strategy)]
    if not branches:
        return images
    if len(branches) == 1:
        return branches[0](drawn.uniform, images)
    return lax.switch(drawn.op, branches, drawn.uniform, images)


def apply(
    op: jax.Array | int,
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
) -> jax.Array:
    """Apply operation ``op`` of the strategy, with parameters drawn from ``key``.

    The choice is a ``lax.switch`` on ``op`` alone: under ``vmap`` over key and images with one
    shared op it stays a real branch, and only the chosen operation runs.

    Args:
      op: from ``draw_op``.
      key: PRNG key of the parameters.
      images: [n, h, w, c], normalised or whitened.
      strategy: operations joined by ``_``; "" or "none" returns the images as they are.
      siamese: one draw for all images instead of one per image.
      align_corners: the grid convention of scale and rotate (DC, DSA, DM: False; MTT: True). It
        matters only for images that are not square.

    Returns:
      [n, h, w, c].
    """
    if not names(strategy):
        return images
    return augment(Draw(op, _draws(key, len(images), siamese)), images, strategy, align_corners)


def dsa(
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
    mode: str = "S",
) -> jax.Array:
    """Augment a batch: mode "S" applies one drawn operation, "M" all of them in order.

    Raises:
      BadInput: an unknown operation or mode.
    """
    if mode not in ("S", "M"):
        raise BadInput("dsa mode", repr(mode), "'S' (one operation) or 'M' (all in their order)")
    if mode == "S":
        drawn = draw(key, len(images), strategy, siamese)
        return augment(drawn, images, strategy, align_corners)
    for name in names(strategy):
        key, subkey = jax.random.split(key)
        images = apply(0, subkey, images, name, siamese, align_corners)
    return images


# The operations with explicit parameters, each of shape [n] (or [1]: shared by all images).


def color(
    images: jax.Array, brightness: jax.Array, saturation: jax.Array, contrast: jax.Array
) -> jax.Array:
    """Brightness ``x + b``, then saturation about the pixel's channel mean, then contrast.

    ``(x - m_c) s + m_c`` with m_c the mean over channels of each pixel, then ``(x - m) k + m`` with
    m the mean over the whole image.
    """
    images = images + _per_image(brightness, images)
    mean = images.mean(3, keepdims=True)
    images = (images - mean) * _per_image(saturation, images) + mean
    mean = images.mean((1, 2, 3), keepdims=True)
    return (images - mean) * _per_image(contrast, images) + mean


def crop(images: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Shift by integers: ``out[i, j] = in[i + rows, j + cols]``, zero outside."""
    _, h, w, _ = images.shape
    by_row = taps(jnp.arange(h)[None] + rows[:, None], h, images.dtype)
    by_col = taps(jnp.arange(w)[None] + cols[:, None], w, images.dtype)
    return separable(images, by_row, by_col)


def cutout(images: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Set a hole of half the height and width around (rows, cols) to zero, within the image."""
    _, h, w, _ = images.shape
    hole = _hole(h, rows)[:, :, None] & _hole(w, cols)[:, None, :]
    return jnp.where(hole[..., None], jnp.zeros((), images.dtype), images)


def flip(images: jax.Array, flipped: jax.Array) -> jax.Array:
    """Mirror left and right where ``flipped``."""
    return jnp.where(_per_image(flipped, images), images[:, :, ::-1], images)


def scale(images: jax.Array, sx: jax.Array, sy: jax.Array, align_corners: bool = True) -> jax.Array:
    """Resample bilinearly at ``s (i - centre) + centre``: s > 1 zooms out, zero outside.

    Both grid conventions give equal source pixels here: the normalised coordinate is scaled about
    0, the image's centre, and its unit cancels.
    """
    del align_corners
    _, h, w, _ = images.shape
    by_row = taps(about_centre(h, images.dtype)[None] * sy[:, None] + (h - 1) / 2, h)
    by_col = taps(about_centre(w, images.dtype)[None] * sx[:, None] + (w - 1) / 2, w)
    return separable(images, by_row, by_col)


def rotate(images: jax.Array, angle: jax.Array, align_corners: bool = True) -> jax.Array:
    """Resample bilinearly on a grid rotated by ``angle`` (radians), zero outside.

    The grid is rotated in normalised coordinates, which shears images that are not square; by how
    much depends on ``align_corners``, whose unit is (size - 1) / 2 instead of size / 2.
    """
    n, h, w, c = images.shape
    rows = about_centre(h, images.dtype)[None, :, None]
    cols = about_centre(w, images.dtype)[None, None, :]
    less = 1 if align_corners else 0
    aspect = max(w - less, 1) / max(h - less, 1)
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    x = cols * cos - rows * (sin * aspect) + (w - 1) / 2
    y = cols * (sin / aspect) + rows * cos + (h - 1) / 2
    return bilinear(images, y, x)


def _per_image(values: jax.Array, images: jax.Array) -> jax.Array:
    return values.reshape(values.shape + (1,) * (images.ndim - 1))


def _hole(size: int, centre: jax.Array) -> jax.Array:
    side = int(size * CUTOUT + 0.5)
    first = (centre - side // 2)[:, None]
    place = jnp.arange(size)[None]
    return (place >= first) & (place < first + side)


# One branch per operation: map three uniform draws [3, n] (or [3, 1]) to parameters, and apply.


def _draws(key: jax.Array, images: int, siamese: bool) -> jax.Array:
    # Always float32, so that the draw does not depend on the images' dtype. One draw serves all
    # operations: a generator in every branch would dominate the compile time.
    return jax.random.uniform(key, (3, 1 if siamese else images), jnp.float32)


def _color(u: jax.Array, images: jax.Array, align_corners: bool) -> jax.Array:
    brightness, saturation, contrast = u.astype(images.dtype)
    return color(
        images, (brightness - 0.5) * BRIGHTNESS, saturation * SATURATION, contrast + CONTRAST
    )


def _crop(u: jax.Array, images: jax.Array, align_corners: bool) -> jax.Array:
    shifts = []
    for draw, size in zip(u[:2], images.shape[1:3], strict=True):
        most = int(size * CROP + 0.5)
        shifts.append(_whole(draw, 2 * most + 1) - most)
    return crop(images, *shifts)


def _cutout(u: jax.Array, images: jax.Array, align_corners: bool) -> jax.Array:
    centres = []
    for draw, size in zip(u[:2], images.shape[1:3], strict=True):
        side = int(size * CUTOUT + 0.5)
        centres.append(_whole(draw, size + 1 - side % 2))
    return cutout(images, *centres)


def _flip(u: jax.Array, images: jax.Array, align_corners: bool) -> jax.Array:
    return flip(images, u[0] < 0.5)


def _scale(u: jax.Array, images: jax.Array, align_corners: bool) -> jax.Array:
    sx, sy = u[:2].astype(images.dtype) * (SCALE - 1 / SCALE) + 1 / SCALE
    return scale(images, sx, sy, align_corners)


def _rotate(u: jax.Array, images: jax.Array, align_corners: bool) -> jax.Array:
    degrees = (u[0].astype(images.dtype) - 0.5) * (2 * ROTATE)
    return rotate(images, degrees * (math.pi / 180), align_corners)


def _whole(draw: jax.Array, count: int) -> jax.Array:
    """Map uniform draws of [0, 1) to integers 0 .. count - 1."""
    return jnp.floor(draw * count).astype(jnp.int32)


_BRANCHES = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
