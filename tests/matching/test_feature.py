"""Distribution matching against NumPy formulas."""

import jax
import numpy as np

from jdd.matching.feature import cross_covariance, mean_distance, weighted_mean


def test_distance_of_mean_embeddings():
    draw = np.random.default_rng(0)
    real, synthetic = draw.standard_normal((2, 5, 7)), draw.standard_normal((2, 3, 7))
    wanted = 0.0
    for c in range(2):
        wanted += np.sum((real[c, :4].mean(0) - synthetic[c].mean(0)) ** 2)
    padded = np.tile([0.25, 0.25, 0.25, 0.25, 0.0], (2, 1))  # the last row is padding
    with jax.enable_x64(True):
        means = weighted_mean(real, padded), weighted_mean(synthetic, np.full((2, 3), 1 / 3))
        np.testing.assert_allclose(mean_distance(*means), wanted, rtol=1e-12)


def test_cross_covariance_is_that_of_numpy():
    draw = np.random.default_rng(1)
    left, right = draw.standard_normal((6, 3)), draw.standard_normal((6, 4))
    whole = np.cov(left, right, rowvar=False)
    with jax.enable_x64(True):
        np.testing.assert_allclose(cross_covariance(left, right), whole[:3, 3:], rtol=1e-12)
