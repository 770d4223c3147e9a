"""The distance of characteristic functions against formulas, a Monte Carlo and differences."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.matching import characteristic as cf

K, D = 40, 5


@pytest.fixture
def sets():
    """Features of 7 real and 3 synthetic images, and frequencies."""
    draw = np.random.default_rng(0)
    return draw.normal(size=(7, D)), draw.normal(size=(3, D)) + 0.3, draw.normal(size=(K, D))


def published(real, synthetic, t, alpha, beta):
    """The loss by complex numbers, with the phase as the authors write it."""
    phi = [np.exp(1j * f @ t.T).mean(0) for f in (real, synthetic)]
    a, b = map(np.abs, phi)
    both = phi[0].real * phi[1].real + phi[0].imag * phi[1].imag
    pha = np.maximum(2 * (a * b - both), 1e-12)
    return 300 * np.sqrt(alpha * (a - b) ** 2 + beta * pha).mean()


def found(real, synthetic, t, alpha=0.5, beta=0.5, weight=None):
    phis = cf.characteristic(real, t, weight), cf.characteristic(synthetic, t)
    return cf.distance(*phis, alpha, beta)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.1, 0.9), (0.0, 1.0), (2.0, 0.3)])
def test_formula(sets, alpha, beta):
    with jax.enable_x64(True):
        ours = found(*map(jnp.asarray, sets), alpha, beta)
    np.testing.assert_allclose(ours, published(*sets, alpha, beta), rtol=1e-12)


def test_equal_weights_give_the_mean_modulus_of_the_difference(sets):
    real, synthetic, t = sets
    phi = [np.exp(1j * f @ t.T).mean(0) for f in (real, synthetic)]
    with jax.enable_x64(True):
        ours = found(*map(jnp.asarray, sets))
    np.testing.assert_allclose(ours, 300 * np.abs(phi[0] - phi[1]).mean() / np.sqrt(2), rtol=1e-9)


def test_equal_samples_have_distance_zero(sets):
    real, _, t = (jnp.asarray(x, jnp.float32) for x in sets)
    least = 300 * np.sqrt(0.5e-12)  # the lower bound of the phase
    assert float(found(real, real, t)) <= 1.001 * least
    # In another order, up to rounding; other samples are far from it.
    assert float(found(real, real[::-1], t)) < 1e-4 * float(found(real, real + 0.5, t))


def test_rows_of_weight_0_are_padding(sets):
    real, synthetic, t = map(jnp.asarray, sets)
    padded = jnp.concatenate([real, real[:2]])
    weight = jnp.asarray([1 / 7] * 7 + [0.0] * 2)
    np.testing.assert_allclose(
        found(padded, synthetic, t, weight=weight), found(real, synthetic, t), rtol=1e-5
    )


def test_distance_of_two_normals_is_that_of_its_definition():
    # phi of N(m, s^2 I) is exp(i <t, m> - s^2 |t|^2 / 2): an expectation over t alone is left, and
    # samples of both give it up to the Monte Carlo's error.
    draw, n, d = np.random.default_rng(1), 100_000, 2
    m, s = np.array([0.8, -0.4]), 0.5
    t = draw.normal(size=(200_000, d))
    size = (t**2).sum(1)
    phi = np.exp(-size / 2), np.exp(1j * t @ m - s**2 * size / 2)
    exact = 300 * np.abs(phi[0] - phi[1]).mean() / np.sqrt(2)
    key, one, two = jax.random.split(jax.random.key(0), 3)
    samples = (
        jax.random.normal(one, (n, d)),
        s * jax.random.normal(two, (n, d)) + jnp.asarray(m)[None],
    )
    ours = found(*samples, cf.frequencies(key, 400, d, jnp.float32))
    error = 300 * np.abs(phi[0] - phi[1]).std() / np.sqrt(2 * 400)
    assert abs(float(ours) - exact) < 4 * error < 0.2 * exact


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.2, 1.0)])
def test_gradients_are_finite_differences(sets, alpha, beta):
    with jax.enable_x64(True):
        real, synthetic, t = map(jnp.asarray, sets)
        loss = lambda f, t: found(cf.unit(real), cf.unit(f), t, alpha, beta)  # noqa: E731
        grads = jax.grad(loss, (0, 1))(synthetic, t)
        draw, h = np.random.default_rng(2), 1e-6
        for i, x in enumerate((synthetic, t)):
            v = jnp.asarray(draw.normal(size=x.shape))
            ends = [
                loss(*(x + s * h * v if i == j else y for j, y in enumerate((synthetic, t))))
                for s in (1, -1)
            ]
            slope = (ends[0] - ends[1]) / (2 * h)
            np.testing.assert_allclose(jnp.vdot(grads[i], v), slope, rtol=1e-6)


def test_gradients_are_finite_where_sets_agree_or_features_vanish(sets):
    real, _, t = (jnp.asarray(x, jnp.float32) for x in sets)
    here = jax.grad(lambda f: found(cf.unit(real), cf.unit(f), t))(real)
    none = jax.grad(lambda f: found(cf.unit(real), cf.unit(f), t))(jnp.zeros((2, D)))
    assert bool(jnp.isfinite(here).all()) and bool(jnp.isfinite(none).all())


def test_frequencies_of_the_net_are_those_of_its_layers():
    net, d, count = cf.sampling_net(jax.random.key(1), 6), 6, 64
    net[1]["scale"] = jnp.arange(1.0, 7.0)
    t = cf.frequencies(jax.random.key(0), count, d, jnp.float32, net)
    x = np.asarray(jax.random.normal(jax.random.key(0), (4, d)), np.float64)
    for i, layer in enumerate(net):
        assert np.abs(layer["kernel"]).max() <= 1 / np.sqrt(d) + 1e-6
        x = x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
        x = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) * np.asarray(layer["scale"])
        x = np.tanh(x) if i == 2 else np.where(x > 0, x, 0.2 * x)
    np.testing.assert_allclose(t, x, atol=1e-4)
    plain = cf.frequencies(jax.random.key(0), 5000, 3, jnp.float32)
    assert plain.shape == (5000, 3) and abs(float(plain.std()) - 1) < 0.02
