"""Autoencoder, U-Net and the generators made of them: shapes, gradients, latents, time, classes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.errors import BadInput
from jdd.generative.diffusion import sample, schedule_of
from jdd.nets import generators, maps
from jdd.nets.autoencoder import autoencoder
from jdd.nets.unet import auto_levels, time_features, unet


def changed(params, seed=0):
    """Weights without zeros, so that no path through the net is shut."""
    leaves, tree = jax.tree.flatten(params)
    draw = np.random.default_rng(seed)
    noises = [0.3 * draw.standard_normal(a.shape).astype(a.dtype) for a in leaves]
    moved = [np.asarray(a) + n for a, n in zip(leaves, noises, strict=True)]
    return tree.unflatten([jnp.asarray(a) for a in moved])


@pytest.mark.parametrize(
    "shape, levels, latent", [((8, 8, 1), 3, (1, 1, 2)), ((7, 6, 3), 2, (2, 2, 2))]
)
def test_an_autoencoder_has_its_latents_and_images(shape, levels, latent):
    net = autoencoder(shape, 2, 4, levels)
    params = net.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (3, *shape))
    mean, log_variance = jax.jit(net.encode)({"encoder": params["encoder"]}, x)
    assert net.latent == latent and mean.shape == log_variance.shape == (3, *latent)
    decoded = jax.jit(net.decode)({"decoder": params["decoder"]}, mean)
    assert decoded.shape == x.shape
    assert np.asarray(decoded).std(0).max() > 1e-3  # what is coded differs between images


def test_maps_are_padded_cropped_and_repeated():
    x = jnp.arange(30.0).reshape(1, 5, 6, 1)
    wide = maps.padded(x, 4)
    assert wide.shape == (1, 8, 8, 1) and float(wide.sum()) == float(x.sum())
    np.testing.assert_array_equal(maps.cropped(wide, (5, 6)), x)
    np.testing.assert_array_equal(
        maps.repeated(x)[0, :, :, 0], np.kron(np.asarray(x)[0, :, :, 0], np.ones((2, 2)))
    )
    y = maps.standardised(jax.random.normal(jax.random.key(0), (2, 4, 4, 12)) * 3 + 1)
    sizes = [(4, 4, 12), (1, 1, 128), (1, 1, 32), (1, 1, 8), (2, 2, 9)]
    assert [maps.groups_of(*size) for size in sizes] == [4, 8, 2, 1, 1]
    groups = np.asarray(y).reshape(2, 16, 4, 3)
    np.testing.assert_allclose(groups.mean((1, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(groups.var((1, 3)), 1, atol=1e-4)


def test_levels_follow_from_the_side():
    assert [auto_levels(side) for side in (1, 4, 7, 8, 16, 28, 32, 64)] == [1, 1, 1, 2, 2, 3, 3, 4]


def test_times_have_distinct_vectors():
    found = np.asarray(time_features(jnp.asarray([0, 1, 500]), 6))
    rates = [1.0, 10_000 ** (-1 / 3), 10_000 ** (-2 / 3)]
    wanted = [[np.cos(t * r) for r in rates] + [np.sin(t * r) for r in rates] for t in (0, 1, 500)]
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("shape, levels", [((1, 1, 3), 1), ((3, 4, 2), 2)])
def test_a_unet_reads_time_and_class_and_agrees_with_finite_differences(shape, levels):
    net = unet(shape, 3, 4, levels, timesteps=20)
    params = net.init(jax.random.key(0))
    t, labels = jnp.asarray([0, 5, 5, 19]), jnp.asarray([0, 1, 2, 3])
    draw = np.random.default_rng(0)
    with jax.enable_x64(True):
        params = jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float64), params)
        z, way = jnp.asarray(draw.standard_normal((4, *shape))), changed(params, 1)
        apply = jax.jit(net.apply)
        assert not np.any(apply(params, z, t, labels))  # it starts at 0
        params = changed(params)
        out = apply(params, z, t, labels)
        assert out.dtype == jnp.float64 and out.shape == z.shape
        np.testing.assert_array_equal(out, apply(params, z, t, jnp.asarray([0, 1, 2, -1])))
        for other in (apply(params, z, t + 1, labels), apply(params, z, t, (labels + 1) % 4)):
            apart = np.abs(np.asarray(out) - np.asarray(other))
            assert apart.reshape(4, -1).max(1).min() > 1e-6

        def loss(p):
            return jnp.sum(net.apply(p, z, t, labels) ** 2)

        grads = jax.jit(jax.grad(loss))(params)
        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(way), strict=True)
        exact = sum(np.vdot(g, w) for g, w in pairs)
        ends = [
            float(np.sum(np.asarray(apply(shifted, z, t, labels)) ** 2))
            for shifted in (
                jax.tree.map(lambda a, w, s=s: np.asarray(a) + s * np.asarray(w), params, way)
                for s in (1e-6, -1e-6)
            )
        ]
        np.testing.assert_allclose(exact, (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


DIFFUSION = {
    "name": "diffusion", "shape": [4, 4, 1], "classes": 2, "latent": 16, "width": 8, "levels": 2,
    "attention": True, "schedule": "cosine", "timesteps": 12, "steps": 3, "guidance": 2.0,
    "low": [-0.4], "high": [1.5], "part": 2,
}  # fmt: skip
VAE = {
    "name": "vae", "shape": [4, 4, 1], "classes": 2, "latent": 2, "channels": 2, "width": 4,
    "levels": 2, "low": [-0.4], "high": [1.5], "part": 2,
}  # fmt: skip


def test_a_diffusion_generator_samples_in_parts_and_clips():
    z, labels = jax.random.normal(jax.random.key(1), (5, 16)), jnp.asarray([0, 0, 1, 1, 1])
    found = []
    for part in (2, 100):
        net = generators.make(DIFFUSION | {"part": part})
        params = changed(net.init(jax.random.key(0)))
        found.append(np.asarray(jax.jit(net.apply)(params, z, labels)))
    np.testing.assert_allclose(*found, atol=1e-4)
    assert found[0].shape == (5, 4, 4, 1) and -0.4 <= found[0].min() and found[0].max() <= 1.5
    own = unet((4, 4, 1), 2, 8, 2, timesteps=12)

    def predict(z, t, labels):
        return own.apply(params["unet"], z, t, labels)

    limits = (jnp.full((1, 1, 1, 1), -0.4), jnp.full((1, 1, 1, 1), 1.5))
    schedule = schedule_of("cosine", 12)
    plain = jax.jit(lambda z: sample(predict, schedule, z, labels, 3, 2.0, limits=limits))(
        z.reshape(5, 4, 4, 1)
    )
    np.testing.assert_allclose(found[1], plain, atol=1e-5)


def test_a_latent_generator_decodes_its_scaled_latents():
    latent = DIFFUSION | {
        "latent": 2,
        "levels": 0,
        "decoder": {"channels": 2, "width": 4, "levels": 2},
    }
    net = generators.make(latent)
    params = changed(net.init(jax.random.key(0)))
    params["scale"] = jnp.asarray(2.0)
    z, labels = jax.random.normal(jax.random.key(1), (2, 2)), jnp.asarray([0, 1])
    half = jax.jit(net.apply)(params, z, labels)
    coder = autoencoder((4, 4, 1), 2, 4, 2)
    own = unet((1, 1, 2), 2, 8, timesteps=12)
    schedule = schedule_of("cosine", 12)

    @jax.jit
    def by_hand(z):
        drawn = sample(
            lambda z, t, y: own.apply(params["unet"], z, t, y), schedule, z, labels, 3, 2.0
        )
        return jnp.clip(coder.decode(params, drawn / 2.0), -0.4, 1.5)

    np.testing.assert_allclose(half, by_hand(z.reshape(2, 1, 1, 2)), atol=1e-5)


def test_a_vae_generator_has_a_gaussian_of_each_class():
    net = generators.make(VAE)
    params = changed(net.init(jax.random.key(0)))
    z, labels = jnp.asarray([[0.0, 0.0], [1.0, -1.0], [0.3, 0.1]]), jnp.asarray([0, 1, 1])
    latents = np.stack([
        np.asarray(params["mean"])[c] + np.asarray(row) @ np.asarray(params["factors"])[c]
        for row, c in zip(z, labels, strict=True)
    ])  # fmt: skip
    coder = autoencoder((4, 4, 1), 2, 4, 2)
    wanted = coder.decode(params, jnp.asarray(latents, jnp.float32).reshape(3, 1, 1, 2))
    np.testing.assert_allclose(net.apply(params, z, labels), jnp.clip(wanted, -0.4, 1.5), atol=1e-5)


@pytest.mark.parametrize(
    "described", [DIFFUSION | {"latent": 5}, VAE | {"latent": 5}, VAE | {"x": 1}]
)
def test_an_architecture_that_does_not_fit_is_refused(described):
    with pytest.raises(BadInput, match="its own options"):
        generators.make(described)
