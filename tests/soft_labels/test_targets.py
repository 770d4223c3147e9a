"""Losses on soft labels against NumPy and finite differences in float64; several teachers."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, rel_entr, softmax

from jdd.errors import BadInput
from jdd.soft_labels import targets
from jdd.soft_labels.ensemble import combine

B, C, T = 5, 4, 3.0
ROWS = np.asarray([0.25, 0.25, 0.25, 0.25, 0.0])


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.normal(0, 3, (B, C)), draw.normal(0, 3, (B, C)), draw.integers(0, C, B)


def differences(loss, s: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Central finite differences of ``loss`` at ``s``."""
    found = np.zeros_like(s)
    for at in np.ndindex(s.shape):
        move = np.zeros_like(s)
        move[at] = step
        found[at] = (loss(s + move) - loss(s - move)) / (2 * step)
    return found


def agree(loss, wanted, s: np.ndarray) -> None:
    """Check value and gradient of ``loss`` at ``s`` against a NumPy function."""
    with jax.enable_x64(True):
        value, gradient = jax.value_and_grad(loss)(jnp.asarray(s))
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, wanted(s), rtol=1e-12)
        np.testing.assert_allclose(gradient, differences(wanted, s), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("rows", [None, ROWS])
@pytest.mark.parametrize("squared", [False, True])
def test_kl(batch, rows, squared):
    z, s, _ = batch
    by = np.full(B, 1 / B) if rows is None else rows
    p = softmax(z / T, axis=1)

    def wanted(s):
        each = rel_entr(p, softmax(s / T, axis=1)).sum(1)
        return (T**2 if squared else 1) * (by * each).sum()

    agree(lambda s: targets.kl(z, s, T, "logits", rows, squared), wanted, s)
    agree(lambda s: targets.kl(p, s, T, "probabilities", rows, squared), wanted, s)


def test_kl_of_labels_with_zeros(batch):
    _, s, y = batch
    hard = np.eye(C)[y]
    agree(
        lambda s: targets.kl(hard, s, 1.0, "probabilities"),
        lambda s: -log_softmax(s, axis=1)[np.arange(B), y].mean(),
        s,
    )


@pytest.mark.parametrize("rows", [None, ROWS])
def test_mse_gt(batch, rows):
    z, s, y = batch

    def wanted(s):
        squares, hard = (s - z) ** 2, -log_softmax(s, axis=1)[np.arange(B), y]
        if rows is None:
            return squares.mean() + 0.15 * hard.mean()
        return squares[:4].mean() + 0.15 * hard[:4].mean()

    agree(lambda s: targets.mse_gt(s, z, y, 0.15, rows), wanted, s)


def test_padding_has_no_weight(batch):
    z, s, y = (a.astype(np.float32) if a.ndim > 1 else a for a in batch)
    rows = jnp.asarray([1 / 3, 1 / 3, 1 / 3, 0, 0])
    for loss in (
        lambda z, s, y, rows=None: targets.kl(z, s, T, rows=rows),
        lambda z, s, y, rows=None: targets.mse_gt(s, z, y, 0.1, rows),
    ):
        found, whole = jax.jit(loss)(z, s, y, rows=rows), loss(z[:3], s[:3], y[:3])
        np.testing.assert_allclose(found, whole, rtol=1e-5)


def test_unknown_kinds_are_refused(batch):
    z, s, _ = batch
    with pytest.raises(BadInput, match="logits, probabilities"):
        targets.kl(z, s, T, "hard")


def test_teachers_are_averaged():
    draw = np.random.default_rng(1)
    teachers = [scale * draw.normal(size=(B, C)) for scale in (1.0, 5.0, 0.2)]
    norms = [np.linalg.norm(z) for z in teachers]
    equal = sum(z * np.mean(norms) / norm for z, norm in zip(teachers, norms, strict=True)) / 3
    with jax.enable_x64(True):
        np.testing.assert_allclose(combine(teachers), sum(teachers) / 3, rtol=1e-12)
        np.testing.assert_allclose(combine(teachers, "equal_norm"), equal, rtol=1e-12)
        for how in ("mean", "equal_norm"):
            np.testing.assert_allclose(combine(teachers[:1], how), teachers[0], rtol=1e-12)
        one = combine([np.zeros((B, C)), teachers[0]], "equal_norm")
        np.testing.assert_allclose(one, teachers[0] / 4, rtol=1e-12)
    halves = [z.astype(np.float16) * 100 for z in teachers]
    assert np.isfinite(combine(halves, "equal_norm")).all()


def test_teachers_that_do_not_fit_are_refused():
    z = np.zeros((B, C))
    with pytest.raises(BadInput, match="mean, equal_norm"):
        combine([z], "vote")
    for teachers in ([], [z, z[:2]]):
        with pytest.raises(BadInput, match="one shape"):
            combine(teachers)
