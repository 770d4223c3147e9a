"""Label maps: the head at every place, what is kept of it, and the labels of crops."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jdd.errors import BadInput
from jdd.soft_labels import maps

N, H, W, D, C = 3, 4, 5, 6, 7


@pytest.fixture(scope="module")
def head() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    shapes = ((N, H, W, D), (D, C), (C,))
    x, kernel, bias = (draw.normal(size=s).astype(np.float32) for s in shapes)
    return x, kernel, bias


def read(place: np.ndarray, y: float, x: float) -> np.ndarray:
    """Bilinear value of one map [h, w, C]; its edge up to 1 outside, 0 beyond."""
    h, w, _ = place.shape
    if not (-1 <= y <= h and -1 <= x <= w):
        return np.zeros(place.shape[-1])
    y, x = min(max(y, 0), h - 1), min(max(x, 0), w - 1)
    top, left = min(int(y), h - 2), min(int(x), w - 2)
    a, b = y - top, x - left
    near = (1 - b) * place[top, left] + b * place[top, left + 1]
    far = (1 - b) * place[top + 1, left] + b * place[top + 1, left + 1]
    return (1 - a) * near + a * far


def aligned(place: np.ndarray, box: np.ndarray) -> np.ndarray:
    """RoIAlign to 1 x 1, sample by sample."""
    h, w, _ = place.shape
    tall, wide = max(h * box[2], 1), max(w * box[3], 1)
    rows, cols = math.ceil(tall), math.ceil(wide)
    total = 0.0
    for i in range(rows):
        for j in range(cols):
            y = h * box[0] - 0.5 + (i + 0.5) * tall / rows
            x = w * box[1] - 0.5 + (j + 0.5) * wide / cols
            total = total + read(place, y, x)
    return total / (rows * cols)


def test_the_mean_of_the_map_is_the_logits(head):
    x, kernel, bias = head
    found = maps.label_map(*head)
    assert found.shape == (N, H, W, C)
    np.testing.assert_allclose(found[1, 2, 3], x[1, 2, 3] @ kernel + bias, rtol=1e-5, atol=1e-5)
    logits = x.mean((1, 2)) @ kernel + bias
    np.testing.assert_allclose(found.mean((1, 2)), logits, rtol=1e-5, atol=1e-5)


def test_the_label_of_the_whole_image_is_that_of_the_mean(head):
    whole = np.asarray(maps.label_map(*head))
    stored = maps.compress(whole, C)
    logits = maps.crop(jnp.asarray(maps.expand(*stored, C)), jnp.asarray([[0.0, 0, 1, 1]] * N))
    # Float16 moves a logit by up to 2^-11 of the largest one, and its softmax by half as much.
    off = 2.0**-11 * np.abs(whole).max()
    np.testing.assert_allclose(logits, whole.mean((1, 2)), rtol=0, atol=off)
    wanted = softmax(whole.mean((1, 2)), axis=-1)
    np.testing.assert_allclose(softmax(logits, axis=-1), wanted, rtol=0, atol=off)


def test_crops_are_those_of_a_loop_over_samples():
    draw = np.random.default_rng(1)
    n = 40
    place = draw.normal(size=(n, H, W, C))
    size = draw.uniform(0.05, 1, (n, 2))
    at = draw.uniform(0, 1, (n, 2)) * (1 - size)
    at[30:] += draw.uniform(-0.9, 0.9, (10, 2))  # over the edge, as crops of padded images are
    box = np.concatenate([at, size], 1)
    wanted = [aligned(*pair) for pair in zip(place, box, strict=True)]
    with jax.enable_x64(True):
        found = jax.jit(maps.crop)(jnp.asarray(place), jnp.asarray(box))
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_a_box_rounded_up_takes_no_other_sample():
    place = jnp.asarray(np.random.default_rng(2).normal(size=(1, 3, 3, 2)), jnp.float32)
    one = maps.crop(place, jnp.asarray([[0, 0, 1 / 3, 1 / 3]]))
    two = maps.crop(place, jnp.asarray([[0, 0, 1 / 3 + 1e-6, 1 / 3 + 1e-6]]))
    np.testing.assert_allclose(one, place[:, 0, 0], atol=1e-5)
    np.testing.assert_allclose(two, one, atol=1e-4)


def test_a_mirrored_map_has_the_label_of_the_mirrored_box():
    place = jnp.asarray(np.random.default_rng(3).normal(size=(1, H, W, C)), jnp.float32)
    box = jnp.asarray([[0.1, 0.2, 0.5, 0.3]])
    mirrored = jnp.asarray([[0.1, 1 - 0.2 - 0.3, 0.5, 0.3]])
    found = maps.crop(place[:, :, ::-1], mirrored)
    np.testing.assert_allclose(found, maps.crop(place, box), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", [1, 3, C])
def test_the_largest_are_kept_and_the_others_are_zero(head, k):
    whole = np.asarray(maps.label_map(*head))
    values, indices = maps.compress(whole, k)
    assert values.shape == indices.shape == (N, k, H, W)
    assert values.dtype == np.float16 and indices.dtype == np.int16
    assert values.nbytes + indices.nbytes == N * k * H * W * (2 + 2)
    least = np.sort(whole, axis=-1)[..., C - k, None]
    wanted = np.where(whole >= least, whole.astype(np.float16), 0)
    found = maps.expand(values, indices, C)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    traced = jax.jit(lambda v, i: maps.expand(v, i, C))(values, indices)
    np.testing.assert_array_equal(traced, found)


def test_limits():
    for k in (0, C + 1):
        with pytest.raises(BadInput, match="1 to 7"):
            maps.compress(np.zeros((1, 2, 2, C)), k)
    with pytest.raises(BadInput, match="65504"):
        maps.compress(np.full((1, 2, 2, C), 1e5), 1)
