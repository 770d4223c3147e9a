"""Kernel ridge regression and the labels' margin against formulas of their own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.matching.losses import centred, squared_error
from jdd.matching.ridge import label_margin, predict

DRAW = np.random.default_rng(0)


def problem(n=6, d=9, m=7, classes=4):
    return (DRAW.normal(size=shape) for shape in ((n, d), (n, classes), (m, d), (m, classes)))


def primal(known, labels, asked, ridge):
    """Ridge regression in the space of the features: least squares of a stacked system."""
    n, d = known.shape
    weight = ridge * np.square(known).sum() / n
    system = np.concatenate([known, np.sqrt(weight) * np.eye(d)])
    wanted = np.concatenate([labels, np.zeros((d, labels.shape[1]))])
    return asked @ np.linalg.lstsq(system, wanted, rcond=None)[0]


@pytest.mark.parametrize(("n", "d"), [(6, 9), (9, 6)])
@pytest.mark.parametrize("ridge", [1e-6, 0.3])
def test_prediction_is_ridge_regression(n, d, ridge):
    known, labels, asked, _ = problem(n, d)
    with jax.enable_x64(True):
        found, used = predict(*map(jnp.asarray, (known, labels, asked)), ridge)
        assert found.dtype == jnp.float64
        assert used == ridge
    np.testing.assert_allclose(found, primal(known, labels, asked, ridge), rtol=1e-6, atol=1e-8)


def test_prediction_in_float32_is_near():
    known, labels, asked, _ = problem()
    found, _ = predict(*(jnp.asarray(a, jnp.float32) for a in (known, labels, asked)))
    np.testing.assert_allclose(found, primal(known, labels, asked, 1e-6), rtol=1e-3, atol=1e-3)


def test_more_images_than_features_in_float32():
    """K has no Cholesky factor at 1e-6: the ridge rises until there is one, and the fit is good."""
    draw = np.random.default_rng(3)
    known = np.abs(draw.normal(size=(80, 8)) + 3)
    labels = known @ draw.normal(size=(8, 2))
    arrays = [jnp.asarray(a, jnp.float32) for a in (known, labels, known)]
    gradient = jax.jit(jax.grad(lambda f: jnp.sum(predict(f, *arrays[1:])[0][:, 0])))(arrays[0])
    assert np.isfinite(gradient).all()
    near = 0.05 * np.abs(labels).max()
    np.testing.assert_allclose(jax.jit(predict)(*arrays)[0], labels, atol=near)
    kernel = arrays[0] @ arrays[0].T
    eye = jnp.eye(80) * jnp.trace(kernel) / 80
    assert not np.isfinite(jnp.linalg.cholesky(kernel + 1e-8 * eye)).all()
    found, used = predict(*arrays, 1e-8)
    assert used >= 1e-7  # and says which it took
    np.testing.assert_allclose(found, labels, atol=near)


def test_gradients_are_finite_differences():
    known, labels, asked, truth = problem()
    with jax.enable_x64(True):
        point = {"known": jnp.asarray(known), "labels": jnp.asarray(labels)}

        def loss(point):
            found, _ = predict(point["known"], point["labels"], jnp.asarray(asked))
            return squared_error(found, jnp.asarray(truth)) + label_margin(point["labels"], 2.0)

        grads, h = jax.grad(loss)(point), 1e-6
        for name, value in point.items():
            along = jnp.asarray(DRAW.normal(size=value.shape))
            ends = [loss(point | {name: value + s * h * along}) for s in (1, -1)]
            difference = (ends[0] - ends[1]) / (2 * h)
            np.testing.assert_allclose(jnp.vdot(grads[name], along), difference, rtol=1e-6)


def test_loss_is_half_the_squared_distance():
    found, truth = DRAW.normal(size=(2, 5, 3))
    wanted = np.mean([0.5 * np.linalg.norm(a - b) ** 2 for a, b in zip(found, truth, strict=True)])
    np.testing.assert_allclose(squared_error(jnp.asarray(found), truth), wanted, rtol=1e-6)


def test_margin_is_capped_and_pushes_only_below_its_cap():
    labels = jnp.asarray([[0.9, 0.1, 0.0], [0.3, 0.2, 0.25], [-1.0, -0.1, -0.15]])
    most = 1 / 3
    np.testing.assert_allclose(label_margin(labels, most), -(most + 0.05 + 0.05) / 3, rtol=1e-6)
    grads = jax.grad(label_margin)(labels, most)
    wanted = np.array([[0, 0, 0], [-1, 0, 1], [0, -1, 1]]) / 3
    np.testing.assert_allclose(grads, wanted, atol=1e-7)


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_centred_labels(classes):
    labels = np.array([0, 2, 1])
    found = np.asarray(centred(labels, classes))
    wanted = np.full((3, classes), -1 / classes)
    wanted[np.arange(3), labels] += 1
    np.testing.assert_allclose(found, wanted / np.sqrt(classes / 10), rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-5)
