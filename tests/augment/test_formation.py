"""Multi-formation: tiles, bilinear weights, derivative, and the images they start from."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.augment import formation


def enlarged(tile, h, w):
    """Bilinear resizing with half-pixel centres, pixel by pixel."""
    out = np.zeros((h, w, tile.shape[2]))
    for i in range(h):
        for j in range(w):
            y = np.clip((i + 0.5) * tile.shape[0] / h - 0.5, 0, tile.shape[0] - 1)
            x = np.clip((j + 0.5) * tile.shape[1] / w - 0.5, 0, tile.shape[1] - 1)
            a, b = int(y), int(x)
            c, d = min(a + 1, tile.shape[0] - 1), min(b + 1, tile.shape[1] - 1)
            v, u = y - a, x - b
            top = tile[a, b] * (1 - u) + tile[a, d] * u
            low = tile[c, b] * (1 - u) + tile[c, d] * u
            out[i, j] = top * (1 - v) + low * v
    return out


@pytest.mark.parametrize(("factor", "shape"), [(2, (2, 4, 8, 3)), (3, (1, 6, 6, 1))])
def test_tiles_are_enlarged_row_by_row(factor, shape):
    images = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    n, h, w, _ = shape
    th, tw = h // factor, w // factor
    wanted = [
        enlarged(images[i, a * th : (a + 1) * th, b * tw : (b + 1) * tw], h, w)
        for i in range(n)
        for a in range(factor)
        for b in range(factor)
    ]
    np.testing.assert_allclose(formation.decode(images, factor), wanted, atol=1e-6)


def test_factor_1_is_the_images_and_the_map_is_linear():
    images = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    assert formation.decode(images, 1) is images
    _, pull = jax.vjp(lambda x: formation.decode(x, 2), images)
    back = pull(jnp.ones((8, 4, 4, 3)))[0]
    # Rows of the weights sum to 1: each decoded image spreads 16 ones over its tile of 4 pixels.
    np.testing.assert_allclose(
        back.reshape(2, 2, 2, 2, 2, 3).sum((2, 4)), jnp.full((2, 2, 2, 3), 16.0), rtol=1e-5
    )


def test_mixed_images_have_real_ones_as_tiles():
    real = np.random.default_rng(0).normal(size=(8, 4, 6, 2)).astype(np.float32)
    stored = formation.mixed(real, 2)
    assert stored.shape == (2, 4, 6, 2)
    np.testing.assert_array_equal(stored[1, 2:, :3], real[6, ::2, ::2])
    np.testing.assert_array_equal(stored[0, :2, 3:], real[1, ::2, ::2])
