"""Contrastive losses against loops in NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from jdd.matching import contrastive

DRAW = np.random.default_rng(3)
LOGITS, TARGET = DRAW.normal(size=(5, 5)) * 3, DRAW.uniform(size=(5, 5))


def test_nce_by_hand():
    total = 0.0
    for a, s in ((LOGITS, TARGET), (LOGITS.T, TARGET.T)):
        for i in range(5):
            z = np.log(np.sum(np.exp(a[i])))
            total -= 0.5 * sum(s[i, j] * (a[i, j] - z) for j in range(5)) / 5
    np.testing.assert_allclose(contrastive.nce(LOGITS, TARGET), total, rtol=1e-5)


def test_nce_of_the_identity_is_cross_entropy_both_ways():
    log = jax.nn.log_softmax
    wanted = -0.5 * (np.diag(log(LOGITS, axis=1)).mean() + np.diag(log(LOGITS, axis=0)).mean())
    np.testing.assert_allclose(contrastive.nce(LOGITS, jnp.eye(5)), wanted, rtol=1e-5)


def test_weighted_bce_by_hand():
    cells, p = np.zeros((5, 5)), 1 / (1 + np.exp(-LOGITS))
    for i in range(5):
        for j in range(5):
            s = TARGET[i, j]
            cells[i, j] = -s * np.log(p[i, j] + 1e-6) - (1 - s) * np.log(1 - p[i, j] + 1e-6)
    own = TARGET > 0.5
    wanted = 0.5 * (cells[own].mean() + cells[~own].mean())
    np.testing.assert_allclose(contrastive.weighted_bce(LOGITS, TARGET), wanted, rtol=1e-4)


def test_a_part_of_the_pairs_has_the_part_of_the_matrix():
    w, left, right = (DRAW.normal(size=s) for s in ((6,), (6, 2), (6, 2)))
    rows = np.array([4, 0, 3])
    whole = contrastive.similarity(w, left, right, 0.7)
    part = contrastive.similarity(w[rows], left[rows], right[rows], 0.7)
    np.testing.assert_allclose(part, np.asarray(whole)[np.ix_(rows, rows)], rtol=1e-5)
    np.testing.assert_array_equal(
        contrastive.similarity(jnp.ones(3), jnp.zeros((3, 0)), jnp.zeros((3, 0)), 1.0), np.eye(3)
    )


def test_gradients_against_finite_differences():
    with jax.enable_x64(True):
        args = tuple(map(jnp.asarray, (LOGITS, TARGET)))
        check_grads(contrastive.nce, args, 1, ["rev"], 1e-6, 1e-6, 1e-5)
        check_grads(contrastive.weighted_bce, args, 1, ["rev"], 1e-5, 1e-5, 1e-5)
