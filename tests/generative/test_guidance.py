"""Guides: their formulas by automatic differentiation, their stop, and what they do to samples."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.generative import diffusion, guidance

T = 100
SCHEDULE = diffusion.cosine(T)
LABELS = jnp.array([0, 0, 1, 0, 2])


def drawn(*shape: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.vdot(a, b) / jnp.sqrt(jnp.vdot(a, a) * jnp.vdot(b, b))


def noise(t: int) -> float:
    return float(np.sqrt(1 - np.asarray(SCHEDULE.alpha_bar, np.float64)[t]))


def test_mode_guidance_is_the_slope_of_the_squared_distance():
    z0, modes, t = drawn(5, 2, 2, 3), drawn(5, 2, 2, 3, seed=1), jnp.full(5, 70)
    found = guidance.mode(SCHEDULE, modes, 0.3)(z0, z0, t, LABELS)
    slope = jax.grad(lambda x: 0.5 * jnp.sum((x - modes) ** 2))(z0)
    np.testing.assert_allclose(found, -0.3 * noise(70) * slope, rtol=1e-5)


def test_representativeness_is_the_slope_of_the_least_similarity_to_a_centre():
    z0, centres = drawn(5, 2, 2, 3), drawn(3, 4, 2, 2, 3, seed=2)
    found = guidance.representative(SCHEDULE, centres, 0.3)(z0, z0, jnp.full(5, 70), LABELS)
    for row, label, shift in zip(z0, LABELS, found, strict=True):

        def least(x, label=label):
            return jnp.min(jnp.stack([cosine(x, c) for c in centres[label]]))

        wanted = 0.3 * noise(70) * jnp.vdot(row, row) * jax.grad(least)(row)
        np.testing.assert_allclose(shift, wanted, rtol=1e-4, atol=1e-6)
        assert least(row + 0.01 * shift) > least(row)


def test_diversity_is_the_slope_of_the_largest_similarity_to_another_image_of_the_class():
    z0 = drawn(5, 2, 2, 3)
    found = guidance.diverse(SCHEDULE, 0.3)(z0, z0, jnp.full(5, 70), LABELS)
    of_class = np.array([0, 1, 3])
    for i in of_class:
        others = [j for j in of_class if j != i]

        def most(x, others=others):
            return jnp.max(jnp.stack([cosine(x, z0[j]) for j in others]))

        wanted = -0.3 * noise(70) * jnp.vdot(z0[i], z0[i]) * jax.grad(most)(z0[i])
        np.testing.assert_allclose(found[i], wanted, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[jnp.array([2, 4])], 0)  # the only ones of their classes


def test_guides_stop_and_add_up():
    z0, centres = drawn(5, 2, 2, 3), drawn(3, 4, 2, 2, 3, seed=2)
    made = guidance.build(SCHEDULE, centres, 0.1, 0.2, 0.3, until=0.4)
    modes = drawn(5, 2, 2, 3, seed=1)
    total = made(modes)
    assert total is not None
    parts = [
        guidance.mode(SCHEDULE, modes, 0.1, 0.4),
        guidance.representative(SCHEDULE, centres, 0.2, 0.4),
        guidance.diverse(SCHEDULE, 0.3, 0.4),
    ]
    for t in (40, 99):
        each = [part(z0, z0, jnp.full(5, t), LABELS) for part in parts]
        assert all(np.abs(shift).max() > 0 for shift in each)
        np.testing.assert_allclose(total(z0, z0, jnp.full(5, t), LABELS), sum(each), rtol=1e-5)
    np.testing.assert_array_equal(total(z0, z0, jnp.full(5, 39), LABELS), 0)
    assert guidance.build(SCHEDULE, centres)(modes) is None


@pytest.mark.parametrize("scale", [0.0, 0.2])
def test_a_guided_sample_of_a_gaussian_lies_nearer_to_its_mode(scale):
    """The optimal predictor of N(0, 4 I) is eps = sqrt(1 - abar) z / (4 abar + 1 - abar)."""

    def predict(z, t, labels):
        kept = SCHEDULE.alpha_bar[t].reshape(-1, 1)
        return jnp.sqrt(1 - kept) * z / (4 * kept + 1 - kept)

    modes = jnp.full((512, 2), 3.0)
    guide = guidance.build(SCHEDULE, modes[None, :1], scale)(modes)
    found = diffusion.sample(predict, SCHEDULE, drawn(512, 2), jnp.zeros(512, int), 50, guide=guide)
    mean = float(found.mean())
    assert abs(mean) < 0.2 if not scale else 1 < mean < 4
