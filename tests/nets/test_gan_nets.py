"""Generator and critic of the GAN: layers against NumPy, sizes, statistics, bad input."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.errors import BadInput
from jdd.nets import gan, generators

DESCRIBED = {
    "name": "acgan", "shape": [8, 8, 1], "classes": 3, "latent": 5, "width": 4,
    "mean": [0.3], "std": [0.5],
}  # fmt: skip


@pytest.mark.parametrize("size", [3, 4])
def test_a_transposed_convolution_spreads_every_pixel(size):
    draw = np.random.default_rng(0)
    x, kernel = draw.standard_normal((2, 3, 4, 2)), draw.standard_normal((size, size, 2, 3))
    whole = np.zeros((2, 2 * 3 + 2, 2 * 4 + 2, 3))  # with the border that padding 1 cuts off
    for i in range(3):
        for j in range(4):
            for a in range(size):
                for b in range(size):
                    whole[:, 2 * i + a, 2 * j + b] += x[:, i, j] @ kernel[a, b]
    sides = [2 * side - (size == 3) for side in (3, 4)]
    wanted = whole[:, 1 : 1 + sides[0], 1 : 1 + sides[1]]
    found = gan.conv_transposed(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def test_the_published_nets_have_the_published_sizes():
    for shape in ((32, 32, 3), (28, 28, 1)):
        pair = gan.pair(shape, 10, 100, 196)
        found = jax.eval_shape(pair.init, jax.random.key(0))
        if shape[0] == 32:
            # Dense, three 4x4 and four 3x3 layers of 196 channels, the last one, scales and shifts.
            layers = 101 * 3136 + 3 * (16 * 196**2 + 196) + 4 * (9 * 196**2 + 196)
            assert count(found["generator"]) == layers + (9 * 196 + 1) * 3 + 2 * (3136 + 7 * 196)
            norms = 2 * 196 * (32**2 + 2 * 16**2 + 4 * 8**2 + 4**2)
            convs = (27 + 1) * 196 + 7 * (9 * 196**2 + 196)
            assert count(found["critic"]) == convs + norms + 197 * 11


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (16, 24, 2), (64, 64, 1)])
def test_images_of_every_size_are_made_and_judged(shape):
    pair = gan.pair(shape, 3, 5, 2)

    def run(key):
        nets = pair.init(key)
        z, labels = jnp.zeros((2, 5)), jnp.zeros(2, jnp.int32)
        images, stats = pair.generate(nets["generator"], pair.stats(), z, labels, True)
        return images, pair.critic_output(nets["critic"], images), stats

    images, (source, logits), _ = jax.eval_shape(run, jax.random.key(0))
    assert images.shape == (2, *shape) and source.shape == (2,) and logits.shape == (2, 3)


def test_the_class_is_the_first_entries_of_z():
    z = jnp.arange(10.0).reshape(2, 5)
    found = gan.with_class(z, jnp.asarray([2, 0]), 3)
    np.testing.assert_array_equal(found, [[0, 0, 1, 3, 4], [1, 0, 0, 8, 9]])
    net = generators.make(DESCRIBED)
    params = net.init(jax.random.key(0))
    other = z.at[:, :3].set(7.0)  # overwritten, so without effect
    labels = jnp.asarray([2, 0])
    np.testing.assert_array_equal(net.apply(params, z, labels), net.apply(params, other, labels))
    assert (net.apply(params, z, labels) != net.apply(params, z, labels[::-1])).any()


def test_an_image_depends_on_its_own_latent_vector_and_is_in_range():
    net = generators.make(DESCRIBED)
    params = net.init(jax.random.key(0))
    z, labels = jax.random.normal(jax.random.key(1), (6, 5)), jnp.arange(6) % 3
    whole = net.apply(params, z, labels)
    np.testing.assert_allclose(whole[4:5], net.apply(params, z[4:5], labels[4:5]), atol=1e-6)
    pixels = whole * 0.5 + 0.3
    assert float(pixels.min()) >= -1e-6 and float(pixels.max()) <= 1 + 1e-6
    back = gan.in_range(whole, [0.3], [0.5])
    np.testing.assert_allclose(back, 2 * pixels - 1, atol=1e-6)
    np.testing.assert_allclose(gan.normalised(back, [0.3], [0.5]), whole, atol=1e-6)


def test_training_updates_the_running_statistics_as_pytorch_does():
    pair = gan.pair((8, 8, 1), 3, 5, 4)
    params, stats = pair.init(jax.random.key(0))["generator"], pair.stats()
    z, labels = jax.random.normal(jax.random.key(1), (6, 5)), jnp.arange(6) % 3
    _, new = pair.generate(params, stats, z, labels, True)
    first = np.asarray(gan.with_class(z, labels, 3) @ params["dense"]["kernel"])
    first = first + np.asarray(params["dense"]["bias"])
    np.testing.assert_allclose(new["norm0"]["mean"], 0.1 * first.mean(0), rtol=1e-4, atol=1e-6)
    spread = first.var(0, ddof=1)
    np.testing.assert_allclose(new["norm0"]["var"], 0.9 + 0.1 * spread, rtol=1e-4)
    kept, same = pair.generate(params, stats, z, labels, False)
    assert same is stats and kept.shape == (6, 8, 8, 1)


def test_the_maximum_of_a_map_has_one_place():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 3, 4)))
    np.testing.assert_array_equal(gan._largest(x), x.max((1, 2)))
    ties = jax.grad(lambda x: jnp.sum(gan._largest(x)))(jnp.zeros((1, 2, 2, 1)))
    assert float(ties.sum()) == 1.0 and float(ties.max()) == 1.0


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"shape": [30, 30, 1]}, "a GAN of 30x30 images; 8x8, 28x28"),
        ({"latent": 3}, "latent 3, of which 3 are the class; 4 or more"),
        ({"mean": [0.3, 0.3]}, "its own options"),
        ({"width": "x"}, "its own options"),
        ({"depth": 3}, "its own options"),
    ],
)
def test_a_description_that_cannot_be_is_refused(changes, words):
    with pytest.raises(BadInput, match=words):
        generators.make(DESCRIBED | changes, "distilled.npz")
