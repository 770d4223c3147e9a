"""Losses of the GAN against formulas in NumPy, and the penalty against finite differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.generative import wgan
from jdd.nets import gan


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def numpy_gradient(f, u, h=1e-6):
    """Return the gradient of each image's f by central differences, pixel by pixel."""
    out = np.zeros_like(u)
    for place in np.ndindex(u.shape[1:]):
        ends = []
        for sign in (1, -1):
            moved = u.copy()
            moved[(slice(None), *place)] += sign * h
            ends.append(np.asarray(f(jnp.asarray(moved))))
        out[(slice(None), *place)] = (ends[0] - ends[1]) / (2 * h)
    return out


@pytest.mark.slow
def test_the_penalty_equals_that_of_numerical_gradients():
    pair = gan.pair((8, 8, 1), 3, 5, 3)
    key = jax.random.key(0)
    critic = jax.tree.map(lambda x: x.astype(jnp.float64) * 1.5, pair.init(key)["critic"])
    draw = np.random.default_rng(0)
    real, fake = draw.uniform(-1, 1, (2, 3, 8, 8, 1))
    share = draw.uniform(size=3)

    def source(u):
        return pair.critic_output(critic, u)[0]

    mixed = share[:, None, None, None] * real + (1 - share)[:, None, None, None] * fake
    lengths = np.linalg.norm(numpy_gradient(jax.jit(source), mixed).reshape(3, -1), axis=1)
    assert lengths.min() > 1e-3
    found = wgan.gradient_penalty(source, *map(jnp.asarray, (real, fake, share)))
    np.testing.assert_allclose(found, np.mean((lengths - 1) ** 2), rtol=1e-6)


def test_the_penalty_of_a_linear_source_is_known_and_flat_at_zero():
    images, share = jnp.ones((2, 2, 2, 1)), jnp.ones(2)

    def penalty(w):
        return wgan.gradient_penalty(lambda u: u.reshape(2, -1) @ w, images, images, share)

    w = jnp.asarray([3.0, 0.0, 4.0, 0.0])
    np.testing.assert_allclose(penalty(w), 16.0)
    np.testing.assert_allclose(jax.grad(penalty)(w), 2 * (5 - 1) * w / 5)
    assert np.isfinite(jax.grad(penalty)(jnp.zeros(4))).all()


def test_the_losses_equal_their_formulas():
    draw = np.random.default_rng(1)
    sources, logits = draw.standard_normal((2, 4)), draw.standard_normal((2, 4, 3))
    labels = draw.integers(0, 3, (2, 4))

    def entropy(z, y):
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -np.mean([np.log(p[i, c]) for i, c in enumerate(y)])

    fake, real = (
        wgan.CriticOutput(*map(jnp.asarray, one)) for one in zip(sources, logits, strict=True)
    )
    wanted = -sources[0].mean() + entropy(logits[0], labels[0])
    np.testing.assert_allclose(wgan.generator_loss(fake, jnp.asarray(labels[0])), wanted)
    loss, distance = wgan.critic_loss(fake, jnp.asarray(labels[0]), real, jnp.asarray(labels[1]))
    wanted = sources[0].mean() - sources[1].mean()
    np.testing.assert_allclose(distance, -wanted)
    wanted += entropy(logits[0], labels[0]) + entropy(logits[1], labels[1])
    np.testing.assert_allclose(loss, wanted)
