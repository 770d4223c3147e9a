"""FRePo's augmentation for training nets on a set (Zhou, Nezhadarya & Ba, NeurIPS 2022).

As in DSA, one call draws one operation of the strategy for the whole batch, with parameters per
image. The operations differ from DSA's of the same name: colours change less, a crop is a zoom,
shifts are fractions of a pixel, the hole is smaller and lies inside the image. Outside the image,
the nearest pixel is repeated instead of zero.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from jdd.augment.dsa import color, flip
from jdd.augment.resample import about_centre, bilinear, separable, taps
from jdd.augment.strategy import parse

OPS = ("flip", "color", "crop", "rotate", "translate", "cutout")
BRIGHTNESS, LOG_COLOR, ZOOM, ROTATE, TRANSLATE, CUTOUT = 0.25, 0.25, 1.25, 15.0, 0.125, 0.25


def names(strategy: str) -> tuple[str, ...]:
    """Return the operations of a strategy (``strategy.parse``)."""
    return parse(strategy, OPS, "config.augment")


def draw_op(key: jax.Array, strategy: str) -> jax.Array:
    """Draw one operation uniformly: its index in the strategy, a scalar int32 (0 if empty)."""
    return jax.random.randint(key, (), 0, max(1, len(names(strategy))))


def apply(
    op: jax.Array | int,
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
) -> jax.Array:
    """Apply operation ``op`` of the strategy, with parameters drawn from ``key``.

    Args:
      op: from ``draw_op``; a ``lax.switch`` on it alone.
      images: [n, h, w, c], normalised or whitened.
      strategy: operations joined by ``_``; "" or "none" returns the images as they are.
      siamese: one draw for all images instead of one per image.
      align_corners: has no effect: every operation is defined in pixels.

    Returns:
      [n, h, w, c].
    """
    del align_corners
    branches = [_BRANCHES[name] for name in names(strategy)]
    if not branches:
        return images
    # Always float32, so that the draw does not depend on the images' dtype.
    uniform = jax.random.uniform(key, (3, 1 if siamese else len(images)), jnp.float32)
    if len(branches) == 1:
        return branches[0](uniform, images)
    return lax.switch(op, branches, uniform, images)


# The operations with explicit parameters, each of shape [n] (or [1]: shared by all images).


def zoom(images: jax.Array, by: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Enlarge ``by``: ``out[i] = in[c + (i - c) / by + offset]`` on both axes, c the centre.

    Args:
      rows, cols: the offset of the window's centre, in pixels of the image.
    """
    _, h, w, _ = images.shape
    return _resample(
        images,
        about_centre(h, images.dtype)[None] / by[:, None] + (h - 1) / 2 + rows[:, None],
        about_centre(w, images.dtype)[None] / by[:, None] + (w - 1) / 2 + cols[:, None],
    )


def translate(images: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Shift by any number of pixels: ``out[i, j] = in[i + rows, j + cols]``."""
    _, h, w, _ = images.shape
    by_row = jnp.arange(h, dtype=images.dtype)[None] + rows[:, None]
    return _resample(images, by_row, jnp.arange(w, dtype=images.dtype)[None] + cols[:, None])


def rotate(images: jax.Array, angle: jax.Array) -> jax.Array:
    """Resample bilinearly on a grid turned by ``angle`` (radians) about the centre."""
    _, h, w, _ = images.shape
    rows = about_centre(h, images.dtype)[None, :, None]
    cols = about_centre(w, images.dtype)[None, None, :]
    cos, sin = jnp.cos(angle)[:, None, None], jnp.sin(angle)[:, None, None]
    x = cols * cos - rows * sin + (w - 1) / 2
    y = cols * sin + rows * cos + (h - 1) / 2
    return bilinear(images, jnp.clip(y, 0, h - 1), jnp.clip(x, 0, w - 1))


def cutout(images: jax.Array, rows: jax.Array, cols: jax.Array) -> jax.Array:
    """Set a hole of a quarter of height and width to zero; its first pixel is (rows, cols)."""
    inside = []
    for first, size in ((rows, images.shape[1]), (cols, images.shape[2])):
        place = jnp.arange(size)[None] - first[:, None]
        inside.append((place >= 0) & (place < _side(size)))
    hole = inside[0][:, :, None] & inside[1][:, None, :]
    return jnp.where(hole[..., None], jnp.zeros((), images.dtype), images)


def _side(size: int) -> int:
    return max(1, int(size * CUTOUT + 0.5))


def _resample(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Sample at rows ``y`` [n, h] and columns ``x`` [n, w]; the nearest pixel outside."""
    _, h, w, _ = images.shape
    by_row, by_col = taps(jnp.clip(y, 0, h - 1), h), taps(jnp.clip(x, 0, w - 1), w)
    return separable(images, by_row, by_col)


# One branch per operation: map three uniform draws [3, n] (or [3, 1]) to parameters, and apply.


def _flip(u: jax.Array, images: jax.Array) -> jax.Array:
    return flip(images, u[0] < 0.5)


def _color(u: jax.Array, images: jax.Array) -> jax.Array:
    brightness, saturation, contrast = 2 * u.astype(images.dtype) - 1
    ratios = (jnp.exp(LOG_COLOR * part) for part in (saturation, contrast))
    return color(images, BRIGHTNESS * brightness, *ratios)


def _crop(u: jax.Array, images: jax.Array) -> jax.Array:
    u = 2 * u.astype(images.dtype) - 1
    by = jnp.exp(math.log(ZOOM) * u[0])
    # The window lies anywhere in the image, or the image anywhere in the window.
    slack = (1 - 1 / by) / 2
    _, h, w, _ = images.shape
    return zoom(images, by, h * slack * u[1], w * slack * u[2])


def _rotate(u: jax.Array, images: jax.Array) -> jax.Array:
    return rotate(images, (2 * u[0].astype(images.dtype) - 1) * (ROTATE * math.pi / 180))


def _translate(u: jax.Array, images: jax.Array) -> jax.Array:
    rows, cols = (2 * u[:2].astype(images.dtype) - 1) * TRANSLATE
    return translate(images, rows * images.shape[1], cols * images.shape[2])


def _cutout(u: jax.Array, images: jax.Array) -> jax.Array:
    sizes = images.shape[1:3]
    firsts = [
        jnp.floor(draw * (size - _side(size) + 1)).astype(jnp.int32)
        for draw, size in zip(u[:2], sizes, strict=True)
    ]
    return cutout(images, *firsts)


_BRANCHES = {
    "flip": _flip,
    "color": _color,
    "crop": _crop,
    "rotate": _rotate,
    "translate": _translate,
    "cutout": _cutout,
}
