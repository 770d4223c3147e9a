"""The ELBO against the exact evidence of a linear Gaussian model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.generative import vae

W = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, 0.1]])  # x = W z + b + noise, 3 pixels, 2 latents
B, VARIANCE = np.array([0.1, -0.2, 0.4]), 0.3


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def expected(function, mean, log_variance):
    """The exact mean of a quadratic function of z ~ q: over points at sqrt(l) deviations."""
    size = mean.shape[-1]
    noises = np.sqrt(size) * np.vstack([np.eye(size), -np.eye(size)])
    drawn = [vae.drawn(mean, log_variance, jnp.asarray(n)[None]) for n in noises]
    return jnp.mean(jnp.stack([function(z) for z in drawn]), 0)


def terms(x, mean, log_variance):
    def one(z):
        decoded = (z @ W.T + B[None]).reshape(x.shape)
        return vae.elbo(x, decoded, mean, log_variance, VARIANCE)

    return expected(one, mean, log_variance)


def log_evidence(x):
    covariance = W @ W.T + VARIANCE * np.eye(3)
    centred = x - B
    quadratic = centred @ np.linalg.solve(covariance, centred)
    return -0.5 * (quadratic + np.linalg.slogdet(2 * np.pi * covariance)[1])


def test_elbo_and_evidence_differ_by_the_divergence_to_the_posterior():
    """log p(x) - ELBO = KL(q || posterior), 0 for W of orthogonal columns with the right q."""
    precision = np.eye(2) + W.T @ W / VARIANCE
    draw = np.random.default_rng(0)
    for x in draw.standard_normal((3, 3)):
        exact_mean = np.linalg.solve(precision, W.T @ (x - B) / VARIANCE)
        q_mean, q_var = exact_mean + np.array([0.2, -0.1]), np.array([0.1, 0.4])
        apart = q_mean - exact_mean
        divergence = 0.5 * (
            np.trace(precision @ np.diag(q_var)) + apart @ precision @ apart - 2
            - np.linalg.slogdet(precision)[1] - np.log(q_var).sum()
        )  # fmt: skip
        found = terms(
            jnp.asarray(x).reshape(1, 3, 1, 1), jnp.asarray(q_mean)[None],
            jnp.log(jnp.asarray(q_var))[None],
        )  # fmt: skip
        np.testing.assert_allclose(log_evidence(x) - divergence, found[0], rtol=1e-12)


def test_kl_is_the_integral():
    mean, var = 0.7, 0.2
    z = np.linspace(-9, 9, 200_001)
    q = np.exp(-0.5 * (z - mean) ** 2 / var) / np.sqrt(2 * np.pi * var)
    log_ratio = -0.5 * (z - mean) ** 2 / var - 0.5 * np.log(var) + 0.5 * z**2
    found = vae.kl(jnp.full((1, 1, 1, 1), mean), jnp.full((1, 1, 1, 1), np.log(var)))
    np.testing.assert_allclose(found[0], np.trapezoid(q * log_ratio, z), rtol=1e-10)


def test_loss_is_the_elbo_scaled_and_shifted():
    draw = np.random.default_rng(1)
    x, decoded = (jnp.asarray(draw.standard_normal((4, 2, 2, 1))) for _ in range(2))
    mean, log_variance = (jnp.asarray(draw.standard_normal((4, 1, 1, 3))) for _ in range(2))
    loss = vae.loss(x, decoded, mean, log_variance, 0.05)
    elbo = vae.elbo(x, decoded, mean, log_variance, 0.05)
    constant = 0.5 * 4 * np.log(2 * np.pi * 0.05)
    np.testing.assert_allclose(loss, -0.05 * jnp.mean(elbo + constant) / 4, rtol=1e-12)
