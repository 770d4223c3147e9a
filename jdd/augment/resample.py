"""Differentiable bilinear resampling: coordinates in pixels, zero outside the image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax


def about_centre(size: int, dtype: jnp.dtype) -> jax.Array:
    """Return the pixels' coordinates along an axis, relative to its centre, ``[size]``."""
    return jnp.arange(size, dtype=dtype) - (size - 1) / 2


def taps(source: jax.Array, size: int, dtype: jnp.dtype | None = None) -> jax.Array:
    """Return linear weights ``[n, out, size]`` of source coordinates ``[n, out]``; 0 outside."""
    source = source.astype(dtype or source.dtype)
    places = jnp.arange(size, dtype=source.dtype)
    return jnp.maximum(0, 1 - jnp.abs(source[:, :, None] - places[None, None]))


def separable(images: jax.Array, by_row: jax.Array, by_col: jax.Array) -> jax.Array:
    """Apply [n, h, h] to the rows and [n, w, w] to the columns of each image."""
    n, h, w, c = images.shape
    by_row = jnp.broadcast_to(by_row, (n, h, h))
    by_col = jnp.broadcast_to(by_col, (n, w, w))
    # Full precision: TF32 or bfloat16 products would round the pixels themselves.
    high = lax.Precision.HIGHEST
    images = jnp.einsum("nij,njwc->niwc", by_row, images, precision=high)
    return jnp.einsum("nvw,niwc->nivc", by_col, images, precision=high)


def bilinear(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Sample images [n, h, w, c] at rows ``y`` and columns ``x``, [n or 1, h, w]; zero outside."""
    n, h, w, c = images.shape
    flat = images.reshape(n, h * w, c)
    top, left = jnp.floor(y), jnp.floor(x)
    out = jnp.zeros_like(images)
    for row in (top, top + 1):
        for col in (left, left + 1):
            weight = (1 - jnp.abs(y - row)) * (1 - jnp.abs(x - col))
            inside = (row >= 0) & (row < h) & (col >= 0) & (col < w)
            index = jnp.where(inside, row * w + col, 0).astype(jnp.int32)
            index = jnp.broadcast_to(index, (n, h, w)).reshape(n, h * w, 1)
            value = jnp.take_along_axis(flat, index, axis=1).reshape(images.shape)
            out = out + jnp.where(inside, weight, 0)[..., None] * value
    return out


def crop_taps(
    order: jax.Array,
    source: jax.Array,
    first: jax.Array,
    extent: jax.Array,
    size: int,
    dtype: jnp.dtype,
) -> tuple[jax.Array, jax.Array]:
    """Return linear weights along an axis cropped to ``extent`` pixels and resized to ``size``.

    Pixel i of the resized crop samples, relative to ``first``, the coordinate

        (i + 1/2) extent / size - 1/2, clipped to 0 .. extent - 1,

    in integers up to the last division, so that extent = size gives exactly i.

    Args:
      order: [n, size], the i of each output pixel.
      source: [n, size], the image's pixel at each place.
      first, extent: [n], the crop in pixels; it may reach outside.

    Returns:
      Weights [n, size, size] over the image's pixels, and [n, size], the weight of the outside.
    """
    first, extent, unit = first[:, None], extent[:, None], 2 * size
    at = jnp.clip((2 * order + 1) * extent - size, 0, unit * (extent - 1))
    low, part = first + at // unit, (at % unit).astype(dtype) / unit
    weights = jnp.zeros((), dtype)
    outside = jnp.zeros((), dtype)
    for place, weight in ((low, 1 - part), (low + 1, part)):
        inside = (place >= 0) & (place < size)
        pixel = jnp.take_along_axis(source, jnp.where(inside, place, 0), axis=1)
        hit = inside[..., None] & (pixel[..., None] == jnp.arange(size)[None, None])
        weights = weights + jnp.where(hit, weight[..., None], 0)
        outside = outside + jnp.where(inside, 0, weight)
    return weights, outside
