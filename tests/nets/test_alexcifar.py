"""AlexCifarNet's own layers against plain NumPy, its size, and Xavier's start."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jdd import nets
from jdd.augment.crop_flip import crop_flip
from jdd.nets.alexcifar import local_response
from jdd.nets.conv import overlapping_max_pool


def test_local_response_is_the_formula():
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 7)) * 30
    expected = np.empty_like(x)
    for c in range(7):
        around = [j for j in (c - 2, c - 1, c, c + 1) if 0 <= j < 7]
        total = sum(x[..., j] ** 2 for j in around)
        expected[..., c] = x[..., c] / (1 + 0.001 / 9 / 4 * total) ** 0.75
    with jax.enable_x64(True):
        np.testing.assert_allclose(local_response(jnp.asarray(x)), expected, rtol=1e-12)


def test_overlapping_max_pool_and_its_first_maximum():
    x = np.random.default_rng(1).integers(-4, 0, (1, 5, 6, 2)).astype(np.float32)  # with ties
    expected, gradient = np.empty((1, 3, 3, 2)), np.zeros_like(x)
    for i, j, c in np.ndindex(3, 3, 2):
        window = [
            (a, b)
            for a in range(2 * i - 1, 2 * i + 2)
            for b in range(2 * j - 1, 2 * j + 2)
            if 0 <= a < 5 and 0 <= b < 6
        ]
        a, b = max(window, key=lambda at: x[0, at[0], at[1], c])  # the first of equals
        expected[0, i, j, c] = x[0, a, b, c]
        gradient[0, a, b, c] += 1
    np.testing.assert_array_equal(overlapping_max_pool(jnp.asarray(x)), expected)
    found = jax.grad(lambda v: overlapping_max_pool(v).sum())(jnp.asarray(x))
    np.testing.assert_array_equal(found, gradient)


def test_number_of_parameters():
    net = nets.make("AlexCifarNet", (32, 32, 3), 10)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    convs = (75 + 1) * 64 + (1600 + 1) * 64
    dense = 4097 * 384 + 385 * 192 + 193 * 10
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == convs + dense == 1756426


def test_xavier_start_has_its_variance_and_zero_biases():
    net = nets.make("LeNet", (28, 28, 1), 10, init="xavier")
    params = net.init(jax.random.key(0))["params"]
    for name, fans in (("conv2", 25 * (6 + 16)), ("dense3", 400 + 120)):
        np.testing.assert_allclose(params[name]["kernel"].std(), math.sqrt(2 / fans), rtol=0.05)
        assert not params[name]["bias"].any()


def test_crop_flip_takes_a_window_of_the_mirrored_image():
    images = np.arange(3 * 8 * 8, dtype=np.float32).reshape(3, 8, 8, 1)
    found = np.asarray(crop_flip(jax.random.key(0), jnp.asarray(images)))
    for image, crop in zip(images, found, strict=True):
        padded = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="reflect")
        windows = [padded[i : i + 8, j : j + 8] for i in range(9) for j in range(9)]
        windows += [w[:, ::-1] for w in windows]
        assert any(np.array_equal(crop, w) for w in windows)
