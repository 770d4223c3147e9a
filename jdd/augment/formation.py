"""Multi-formation: an image that stands for factor x factor images of its own size.

A stored image is cut into tiles of a factor-th of its sides; every tile is resized to the whole
size, bilinearly with half-pixel centres. The map is linear, so its derivative is exact.

Source: IDC (Kim et al., ICML 2022), section 4.1; NCFM uses factor 2.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def _upsampling(small: int, large: int) -> np.ndarray:
    """Return the weights ``[large, small]`` of bilinear resizing; rows sum to 1."""
    at = np.clip((np.arange(large) + 0.5) * small / large - 0.5, 0, small - 1)
    return np.maximum(0.0, 1 - np.abs(at[:, None] - np.arange(small)[None]))


def decode(images: jax.Array, factor: int) -> jax.Array:
    """Return the images that stored ones stand for.

    Args:
      images: [n, h, w, c]; ``factor`` divides h and w.
      factor: tiles along a side; 1 returns the images.

    Returns:
      [n factor^2, h, w, c]: the tiles of the first image row by row, then those of the second.
    """
    if factor == 1:
        return images
    n, h, w, c = images.shape
    rows, cols = h // factor, w // factor
    tiles = images.reshape(n, factor, rows, factor, cols, c)
    up = (jnp.asarray(_upsampling(*size), images.dtype) for size in ((rows, h), (cols, w)))
    whole = jnp.einsum("hr,wk,narbkc->nabhwc", *up, tiles)
    return whole.reshape(n * factor**2, h, w, c)


def mixed(images: np.ndarray, factor: int) -> np.ndarray:
    """Return stored images whose tiles are whole images, made small by their nearest pixels.

    Args:
      images: [n factor^2, h, w, c], in the order of ``decode``.

    Returns:
      [n, h, w, c].
    """
    count, h, w, c = images.shape
    small = images[:, ::factor, ::factor]
    tiles = small.reshape(count // factor**2, factor, factor, h // factor, w // factor, c)
    return tiles.transpose(0, 1, 3, 2, 4, 5).reshape(-1, h, w, c)
