"""Figures of generated images against closed forms and searches of every pair."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from jdd.generative import quality

DRAW = np.random.default_rng(0)


def exactly(mean: np.ndarray, covariance: np.ndarray, n: int) -> np.ndarray:
    """Return n rows whose mean and covariance (n - 1) are exactly these."""
    rows = DRAW.normal(size=(n, len(mean)))
    rows -= rows.mean(axis=0)
    rows = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    return rows @ np.linalg.cholesky(covariance).T + mean


def test_the_frechet_distance_is_that_of_gaussians():
    """Commuting covariances have a closed form; others are SciPy's matrix root."""
    means = DRAW.normal(size=(2, 4))
    a, b = np.array([0.5, 1.0, 2.0, 4.0]), np.array([1.0, 3.0, 0.1, 4.0])
    turn = np.linalg.qr(DRAW.normal(size=(4, 4)))[0]
    first, second = (turn @ np.diag(v) @ turn.T for v in (a, b))
    closed = ((means[0] - means[1]) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    rows = exactly(means[0], first, 50), exactly(means[1], second, 40)
    assert quality.frechet(*rows) == pytest.approx(closed, rel=1e-10)
    other = np.cov(DRAW.normal(size=(4, 9)))
    root = scipy.linalg.sqrtm(first @ other).real
    wanted = ((means[0] - means[1]) ** 2).sum() + np.trace(first + other - 2 * root)
    found = quality.frechet(rows[0], exactly(means[1], other, 30))
    assert found == pytest.approx(wanted, rel=1e-9)
    assert quality.frechet(rows[0], rows[0]) == pytest.approx(0.0, abs=1e-9)
    # Fewer rows than columns: the covariance is singular, its root exists.
    few, wide = DRAW.normal(size=(3, 8)), DRAW.normal(size=(5, 8))
    centred = [(a - a.mean(0)) / np.sqrt(len(a) - 1) for a in (few, wide)]
    singular = np.linalg.svd(centred[0] @ centred[1].T, compute_uv=False).sum()
    moved = ((few.mean(0) - wide.mean(0)) ** 2).sum()
    wanted = moved + np.trace(np.cov(few.T)) + np.trace(np.cov(wide.T)) - 2 * singular
    assert quality.frechet(few, wide) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("k", [1, 3])
def test_the_neighbours_are_those_of_every_pair(k, monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 7)  # several parts
    real, made = DRAW.normal(size=(23, 3)), 0.7 * DRAW.normal(size=(31, 3)) + 0.5

    def ball(rows: np.ndarray, i: int) -> float:
        every = sorted(float(np.linalg.norm(rows[i] - rows[j])) for j in range(len(rows)) if j != i)
        return every[k - 1]

    of_real = [ball(real, i) for i in range(len(real))]
    of_made = [ball(made, j) for j in range(len(made))]
    np.testing.assert_allclose(quality.radii(real, k), of_real, rtol=1e-9)
    gap = [[float(np.linalg.norm(r - g)) for g in made] for r in real]
    inside = [[gap[i][j] <= of_real[i] for j in range(len(made))] for i in range(len(real))]
    precision = sum(any(row[j] for row in inside) for j in range(len(made))) / len(made)
    density = sum(map(sum, inside)) / (k * len(made))
    coverage = sum(map(any, inside)) / len(real)
    recall = sum(
        any(gap[i][j] <= of_made[j] for j in range(len(made))) for i in range(len(real))
    ) / len(real)
    found = quality.figures(real, made, k)
    assert found[1:] == pytest.approx((precision, recall, density, coverage))
    assert 0 < precision < 1 and 0 < recall < 1  # the case decides
    assert found.frechet == pytest.approx(quality.frechet(real, made))


def test_figures_of_what_they_should_tell_apart():
    """Equal sides; one image alone (no recall, no coverage); images far from the real ones."""
    real = DRAW.normal(size=(200, 4))
    same = quality.figures(real, real, 5)
    assert (same.precision, same.recall, same.coverage) == (1.0, 1.0, 1.0)
    assert same.frechet == pytest.approx(0, abs=1e-9)
    alone = quality.figures(
        real, np.tile(real[:1], (200, 1)) + 1e-3 * DRAW.normal(size=(200, 4)), 5
    )
    assert alone.precision > 0.99 and alone.recall < 0.05 and alone.coverage < 0.2
    far = quality.figures(real, real + 50.0, 5)
    assert far[1:] == (0.0, 0.0, 0.0, 0.0) and far.frechet == pytest.approx(4 * 50.0**2, rel=1e-6)
    with pytest.raises(ValueError, match="k = 5 of 5 rows"):
        quality.figures(real[:5], real, 5)


def test_the_nearest_image_is_that_of_every_pair(monkeypatch):
    monkeypatch.setattr(quality, "BLOCK", 5)
    among = DRAW.uniform(size=(18, 2, 3, 1))
    images = np.concatenate([among[[4, 17]] + 0.01, DRAW.uniform(size=(3, 2, 3, 1))])
    found = quality.nearest(images, 2.0 * among, lambda x: x / 2.0)
    gap = [[float(np.sqrt(np.mean((x - y) ** 2))) for y in among] for x in images]
    np.testing.assert_array_equal(found.row, np.argmin(gap, axis=1))
    np.testing.assert_allclose(found.distance, np.min(gap, axis=1), rtol=1e-9)
    assert found.row[:2].tolist() == [4, 17]
    rows = np.array([3, 4, 16])
    own = quality.nearest(among[rows], among, lambda x: x, rows)
    wanted = [sorted(np.sqrt(np.mean((among[i] - y) ** 2)) for y in among)[1] for i in rows]
    np.testing.assert_allclose(own.distance, wanted, rtol=1e-9)
    assert (own.row != rows).all()


def test_latents_between_two_keep_their_length():
    first, last = DRAW.normal(size=(2, 40))
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    path = quality.between(first, last, 5)
    np.testing.assert_allclose(np.linalg.norm(path, axis=1), 1.0)
    np.testing.assert_allclose(path[[0, -1]], [first, last], atol=1e-12)
    steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0])
    np.testing.assert_allclose(quality.between(first, first, 3), np.tile(first, (3, 1)))
