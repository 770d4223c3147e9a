"""Schedules, forward process, posterior, DDIM and guidance against independent formulas."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.generative import diffusion
from jdd.generative.diffusion import Schedule


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def schedule(total=50):
    return diffusion.scaled_linear(total, 0.85 / total, 12.0 / total)


def test_schedules_are_products_of_their_betas():
    kept, found = 1.0, np.asarray(diffusion.scaled_linear(4, 0.01, 0.09).alpha_bar)
    for t, root in enumerate((0.1, 0.1 + 0.2 / 3, 0.1 + 0.4 / 3, 0.3)):
        kept *= 1 - root**2
        assert found[t] == pytest.approx(kept, rel=1e-14)
    total = 8
    f = [math.cos((s / total + 0.008) / 1.008 * math.pi / 2) ** 2 for s in range(total + 1)]
    found = np.asarray(diffusion.cosine(total).alpha_bar)
    np.testing.assert_allclose(found[:-1], [f[s] / f[0] for s in range(1, total)], rtol=1e-12)
    assert found[-1] == pytest.approx(found[-2] * 0.001)  # beta is at most 0.999
    at_1000 = np.asarray(diffusion.scaled_linear(1000).alpha_bar)
    np.testing.assert_allclose(diffusion.schedule_of("scaled_linear", 1000).alpha_bar, at_1000)
    assert np.asarray(diffusion.schedule_of("scaled_linear", 200).alpha_bar)[-1] == pytest.approx(
        at_1000[-1], rel=0.1
    )


def test_forward_process_is_the_chain_of_its_steps():
    """Mean and variance of q(z_t | z_0), by multiplying T steps z <- sqrt(1 - b) z + sqrt(b) n."""
    own = schedule(20)
    kept = np.asarray(own.alpha_bar)
    beta = 1 - kept / np.concatenate([[1.0], kept[:-1]])
    mean, variance = 1.7, 0.0
    for t in range(20):
        mean, variance = math.sqrt(1 - beta[t]) * mean, (1 - beta[t]) * variance + beta[t]
        z = diffusion.noised(own, jnp.full((2, 1), 1.7), jnp.asarray([t, t]), jnp.eye(2)[:, :1])
        np.testing.assert_allclose(z[1, 0], mean, rtol=1e-12)  # without noise
        np.testing.assert_allclose((z[0, 0] - z[1, 0]) ** 2, variance, rtol=1e-11)


def test_posterior_is_that_of_bayes():
    """q(z_{t-1} | z_t, z_0) by the product of two Gaussians, in precisions."""
    own, z0, z = schedule(20), 0.8, -0.3
    kept = np.asarray(own.alpha_bar)
    for t in (1, 7, 19):
        alpha = kept[t] / kept[t - 1]
        prior_mean, prior_var = math.sqrt(kept[t - 1]) * z0, 1 - kept[t - 1]
        precision = 1 / prior_var + alpha / (1 - alpha)
        mean = (prior_mean / prior_var + math.sqrt(alpha) * z / (1 - alpha)) / precision
        given = (jnp.full((1, 1), v) for v in (z0, z))
        found = diffusion.posterior(own, *given, jnp.asarray([t]))
        np.testing.assert_allclose(np.ravel(found), [mean, 1 / precision], rtol=1e-12)
    mean, variance = diffusion.posterior(own, jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.asarray([0]))
    np.testing.assert_allclose([mean[0, 0], variance[0, 0]], [1, 0], atol=1e-12)


def test_a_step_of_eta_1_is_the_posterior():
    """Between neighbouring times DDIM with eta 1 has DDPM's mean and variance."""
    own, t = schedule(20), jnp.asarray([9])
    draw = np.random.default_rng(0)
    z, eps, noise = (jnp.asarray(draw.standard_normal((1, 3))) for _ in range(3))
    z0 = diffusion.denoised(z, eps, own.alpha_bar[t])
    mean, variance = diffusion.posterior(own, z0, z, t)
    found = diffusion.ddim_step(z, eps, own.alpha_bar[9], own.alpha_bar[8], 1.0, noise)
    np.testing.assert_allclose(found, mean + jnp.sqrt(variance) * noise, rtol=1e-12)
    plain = diffusion.ddim_step(z, eps, own.alpha_bar[9], own.alpha_bar[4])
    a, b = (float(own.alpha_bar[i]) for i in (9, 4))
    by_hand = math.sqrt(b) * (z - math.sqrt(1 - a) * eps) / math.sqrt(a) + math.sqrt(1 - b) * eps
    np.testing.assert_allclose(plain, by_hand, rtol=1e-12)


def test_times_are_spaced_over_the_schedule():
    assert diffusion.timesteps(schedule(200), 4).tolist() == [150, 100, 50, 0]
    assert diffusion.timesteps(schedule(5), 50).tolist() == [4, 3, 2, 1, 0]
    assert diffusion.timesteps(schedule(10), 3).tolist() == [6, 3, 0]


MEAN = np.array([0.7, -1.2])
COVARIANCE = np.array([[1.3, 0.4], [0.4, 0.5]])


def optimal(own: Schedule):
    """The best predictor for data N(MEAN, COVARIANCE): E[eps | z_t], class 1 is its mirror image.

    eps = sqrt(1 - a) (a C + (1 - a) I)^-1 (z - sqrt(a) m).
    """

    values, axes = np.linalg.eigh(COVARIANCE)

    def predict(z, t, labels):
        kept = own.alpha_bar[t][:, None]
        sign = jnp.where(labels == 1, -1.0, jnp.where(labels < 0, 0.0, 1.0))[:, None]
        along = (z - jnp.sqrt(kept) * sign * MEAN[None]) @ axes
        return (along / (kept * values[None] + 1 - kept)) @ axes.T * jnp.sqrt(1 - kept)

    return predict


def linear_steps(total, steps, eta=0.0):
    """Yield (t, A, b, s) of every step by hand, in NumPy: z' = A z + b + s n for class 0."""
    kept = np.append(np.asarray(schedule(total).alpha_bar), 1.0)
    times = [*diffusion.timesteps(schedule(total), steps), -1]
    for t, following in zip(times[:-1], times[1:], strict=True):
        now, after = kept[t], kept[following]
        of_z = np.sqrt(1 - now) * np.linalg.inv(now * COVARIANCE + (1 - now) * np.eye(2))
        of_1 = -of_z @ MEAN * np.sqrt(now)  # eps = of_z z + of_1
        var = eta**2 * (1 - after) / (1 - now) * (1 - now / after)
        ratio = np.sqrt(after / now)
        weight = np.sqrt(1 - after - var) - ratio * np.sqrt(1 - now)
        yield t, ratio * np.eye(2) + weight * of_z, weight * of_1, np.sqrt(var)


def moments(total, eta=0.0):
    """Mean and covariance of samples by all steps."""
    mean, covariance = np.zeros(2), np.eye(2)
    for _, a, b, s in linear_steps(total, total, eta):
        mean, covariance = a @ mean + b, a @ covariance @ a.T + s**2 * np.eye(2)
    return mean, covariance


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_sampler_of_the_optimal_predictor_is_the_chain_by_hand(eta):
    """Pathwise, with the sampler's own noise."""
    own, key = schedule(40), jax.random.key(5)
    z, labels = jnp.asarray([[0.3, -0.2], [1.0, 2.0]]), jnp.zeros(2, jnp.int32)
    found = diffusion.sample(optimal(own), own, z, labels, 8, eta=eta, key=key)
    by_hand, keys = np.asarray(z), diffusion.image_keys(key, 2)
    for t, a, b, s in linear_steps(40, 8, eta):
        by_hand = by_hand @ a.T + b + s * np.asarray(diffusion.draw(keys, int(t), z))
    np.testing.assert_allclose(found, by_hand, rtol=1e-10)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_optimal_predictor_of_gaussian_data_samples_its_mean_and_covariance(eta):
    """With ever more steps, at first order; the chain is the sampler's, by the test before."""
    errors = []
    for total in (250, 500, 1000):
        mean, covariance = moments(total, eta)
        # The start is taken for pure noise, though abar_T is 0.005.
        np.testing.assert_allclose(mean, MEAN, atol=0.06)
        errors.append(np.abs(covariance - COVARIANCE).max())
    # First order in the length of a step; its limit differs by what abar_T leaves of the data.
    assert errors[2] < 0.02 and abs(2 * errors[2] - errors[1]) < 0.005
    assert errors[1] - errors[2] < 0.6 * (errors[0] - errors[1])


def test_the_sampler_itself_has_the_mean_and_covariance_of_the_data():
    """All at once by the compiled sampler, which is affine in the start noise."""
    own = schedule(400)
    probes, labels = jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), jnp.zeros(3, jnp.int32)
    found = np.asarray(diffusion.sample(optimal(own), own, probes, labels, 400))
    factor = (found[1:] - found[0]).T
    np.testing.assert_allclose(found[0], MEAN, atol=0.06)
    np.testing.assert_allclose(factor @ factor.T, COVARIANCE, atol=0.03)


def test_guidance_1_is_conditional_0_unconditional_and_lines_between():
    own = schedule(30)
    predict = optimal(own)
    z, labels = jnp.asarray([[0.3, -0.2], [1.0, 2.0]]), jnp.asarray([0, 1])
    t = jnp.asarray([17, 17])
    of = {g: np.asarray(diffusion.guided(predict, g)(z, t, labels)) for g in (0.0, 1.0, 2.5)}
    conditional = np.asarray(predict(z, t, labels))
    unconditional = np.asarray(predict(z, t, jnp.asarray([-1, -1])))
    np.testing.assert_array_equal(of[1], conditional)
    np.testing.assert_array_equal(of[0], unconditional)
    np.testing.assert_allclose(of[2.5], unconditional + 2.5 * (conditional - unconditional))
    one, none = (diffusion.sample(predict, own, z, labels, 5, g) for g in (1.0, 0.0))
    assert one[0, 0] > none[0, 0] and one[1, 0] < none[1, 0]  # towards MEAN, and its mirror image


def test_ddim_inverts_itself():
    own = schedule(100)
    predict = optimal(own)
    z, labels = jnp.asarray([[0.3, -0.2], [1.0, 2.0]]), jnp.asarray([0, 1])
    for guidance in (1.0, 2.0):
        clean = diffusion.sample(predict, own, z, labels, 20, guidance)
        back = diffusion.invert(predict, own, clean, labels, 20, guidance, rounds=60)
        np.testing.assert_allclose(back, z, atol=1e-8)
    rough = diffusion.invert(predict, own, clean, labels, 20, 2.0, rounds=1)
    assert 1e-4 < float(jnp.abs(rough - z).max()) < 1


def test_strength_starts_from_a_noised_latent():
    own = schedule(30)
    key, labels = jax.random.key(3), jnp.asarray([0, 0])
    z0 = jnp.asarray([[0.5, -1.0], [0.1, 0.2]])
    seen = []

    def predict(z, t, labels):
        jax.debug.callback(lambda z, t: seen.append((int(t[0]), np.array(z))), z, t)
        return jnp.zeros_like(z)

    diffusion.sample(predict, own, z0, labels, 10, strength=0.4, key=key)
    jax.effects_barrier()
    assert [t for t, _ in seen] == [9, 6, 3, 0]
    noise = diffusion.draw(diffusion.image_keys(key, 2), 30, z0)
    np.testing.assert_allclose(seen[0][1], diffusion.noised(own, z0, jnp.asarray(9), noise))
    assert diffusion.sample(predict, own, z0, labels, 10, strength=0.0) is z0
    with pytest.raises(ValueError, match="give a key"):
        diffusion.sample(predict, own, z0, labels, 10, strength=0.4)


def test_a_guide_shifts_and_limits_clip():
    own = schedule(30)
    z, labels = jnp.asarray([[0.3, -0.2]]), jnp.asarray([0])
    predict = optimal(own)
    moved = diffusion.sample(predict, own, z, labels, 1, guide=lambda z0, z, t, labels: 10 * z0 + z)
    plain = diffusion.sample(predict, own, z, labels, 1)
    np.testing.assert_allclose(moved, plain + 10 * plain + z)
    inside = diffusion.sample(predict, own, 9 * z, labels, 4, limits=(-0.5, 0.5))
    assert float(jnp.abs(inside).max()) <= 0.5 + 1e-12


def test_parts_give_the_same_images():
    own = schedule(30)
    predict, keys = optimal(own), jax.random.split(jax.random.key(0), 7)
    z = jnp.asarray(np.random.default_rng(0).standard_normal((7, 2)))
    labels = jnp.arange(7) % 2

    def make(z, labels, keys):
        return diffusion.sample(predict, own, z, labels, 4, eta=0.7, key=keys)

    whole = make(z, labels, keys)
    for part in (1, 3, 100):
        found = diffusion.in_parts(make, part, z, labels, keys)
        np.testing.assert_allclose(found, whole, rtol=1e-12)
