"""Label maps: one map of logits per image, from which the label of any crop is computed.

If a net's head is an average over places followed by a linear layer, its logits are the mean of the
linear layer applied at each place. The map of these, with its k largest classes at each place,
replaces the labels of all views of an image.

Source: ReLabel (Yun, Oh, Heo, Han, Choe & Chun, CVPR 2021), section 3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jdd.augment import views
from jdd.augment.resample import taps
from jdd.errors import BadInput
from jdd.nets import Net
from jdd.soft_labels.codec import Array, half, index_dtype, place, top

# In places of the map: the float32 rounding of a box in relative coordinates.
SLACK = 1e-4


@lru_cache(maxsize=64)
def places(net: Net) -> tuple[int, int] | None:
    """Return height and width of a net's label map; None if its head does not average a map."""

    def found(x: jax.Array) -> dict[str, jax.Array]:
        return net.apply(net.init(jax.random.key(0)), x, taps="map").taps

    tapped = jax.eval_shape(found, jax.ShapeDtypeStruct((1, *net.shape), jnp.float32))
    return tapped["map"].shape[1:3] if "map" in tapped else None


def answer(net: Net, variables: Any, x: jax.Array, train: bool = False) -> jax.Array:
    """Return the label map [n, h, w, C] of images x, for a net that has one (``places``)."""
    tapped = net.apply(variables, x, train=train, taps="map").taps
    head = variables["params"]["head"]
    return label_map(tapped["map"], head["kernel"], head["bias"])


def label_map(features: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Apply the head at every place, [n, h, w, C]; the mean over places is the logits.

    Args:
      features: [n, h, w, d], the map that the head averages.
      kernel, bias: [d, C] and [C], the linear layer after the average.
    """
    found = jnp.einsum("nhwd,dc->nhwc", features, kernel, precision=lax.Precision.HIGHEST)
    return found + jnp.reshape(bias, (1, 1, 1, -1))


def compress(maps: Array, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the k largest logits at each place: float16 and int16 (int32), both [n, k, h, w].

    Raises:
      BadInput: k outside 1 .. C; a logit not finite or beyond 65504.
    """
    maps = np.asarray(maps)
    classes = maps.shape[-1]
    if not 1 <= k <= classes:
        raise BadInput("k of the label maps", str(k), f"1 to {classes}")
    indices = top(maps, k)
    values = half(np.take_along_axis(maps, indices, -1), "the teacher's label maps")
    values, indices = (np.ascontiguousarray(np.moveaxis(a, -1, 1)) for a in (values, indices))
    return values, indices.astype(index_dtype(classes))


def expand(values: Array, indices: Array, classes: int) -> Array:
    """Undo ``compress``: return maps float32 [n, h, w, C], as NumPy or JAX arrays.

    Classes that are not stored have logit 0, as published: neither the smallest logit nor
    -infinity.
    """
    values = values.astype(np.float32).transpose(0, 2, 3, 1)
    return place(values, indices.transpose(0, 2, 3, 1), 0 * values[..., :1], classes)


def crop(maps: jax.Array, box: jax.Array) -> jax.Array:
    """Return the logits of a crop of each image, [n, C]: RoIAlign of its box to 1 x 1.

    Along an axis of s places, with the box from ``start`` over ``length`` of the image,

        first = s start - 1/2,   extent = max(s length, 1),   m = ceil(extent)
        places: first + (i + 1/2) extent / m,   i = 0 .. m - 1

    and the logits are the mean of the map, read bilinearly, over the m x m' places: torchvision's
    ``roi_align`` as the paper's code calls it (``sampling_ratio=-1``, ``aligned=False``). Places up
    to 1 outside the map read its edge, others 0. The box of the whole image gives the mean of the
    map. A mirrored view has the label of its box.

    Args:
      maps: [n, h, w, C].
      box: [n, 4], top, left, height, width as fractions of the image; height and width up to 1.
    """
    box = jnp.asarray(box, maps.dtype)
    by_row = _weights(box[:, 0], box[:, 2], maps.shape[1])
    by_col = _weights(box[:, 1], box[:, 3], maps.shape[2])
    high = lax.Precision.HIGHEST
    rows = jnp.einsum("nh,nhwc->nwc", by_row, maps, precision=high)
    return jnp.einsum("nw,nwc->nc", by_col, rows, precision=high)


def of_views(maps: jax.Array, view: views.View, shape: tuple[int, ...]) -> jax.Array:
    """Return the logits [n, C] of each image's own view, before mixing, of maps [n, h, w, C].

    Strips of the map are shuffled like those of the image; their number f must divide h and w. Then
    the part of the crop that lies within the image is pooled: the map does not cover the outside.
    Mirrored and shifted views (``views.View.shift``) have the label of their box.

    Args:
      shape: of an image in pixels, (h, w).
    """
    if view.rows.shape[1] > 1:
        rows, cols = (
            views.pixels(order, size)
            for order, size in zip((view.rows, view.cols), maps.shape[1:3], strict=True)
        )
        maps = jnp.take_along_axis(maps, rows[:, :, None, None], axis=1)
        maps = jnp.take_along_axis(maps, cols[:, None, :, None], axis=2)
    size = jnp.array([shape[:2]], jnp.int32)
    first = jnp.clip(view.box[:, :2], 0, size)
    last = jnp.clip(view.box[:, :2] + view.box[:, 2:], 0, size)
    return crop(maps, jnp.concatenate([first / size, (last - first) / size], axis=1))


def _weights(start: jax.Array, length: jax.Array, size: int) -> jax.Array:
    """Return the weight of each of ``size`` places in the mean, [n, size]."""
    extent = jnp.maximum(length * size, 1)[:, None]
    # A box rounded to slightly above an integer number of places must not get one more sample.
    m = jnp.ceil(extent - SLACK)
    i = jnp.arange(size, dtype=extent.dtype)[None]  # m <= size, since length <= 1
    at = start[:, None] * size - 0.5 + (i + 0.5) * extent / m
    read = (i < m) & (at >= -1) & (at <= size)
    weights = taps(jnp.clip(at, 0, size - 1), size) * read[:, :, None]
    return weights.sum(1) / m
