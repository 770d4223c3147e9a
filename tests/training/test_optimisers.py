"""Inner optimisers against independent computations in NumPy and against optax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdd.errors import BadInput
from jdd.training import optimisers

STEPS = 5


def path(optimizer: optimisers.InnerOptimizer, lrs: np.ndarray) -> np.ndarray:
    """Return theta after each step ``[STEPS, 3]``; the last weight has no gradient."""
    theta = jnp.asarray([1.0, -2.0, 0.5])
    state, seen = optimizer.init(theta), []
    for g, lr in zip(gradients(), lrs, strict=True):
        theta, state = optimizer.update(jnp.asarray(g), state, theta, {"lr": lr})
        seen.append(theta)
    return np.stack(seen)


def gradients() -> np.ndarray:
    g = np.random.default_rng(0).standard_normal((STEPS, 3))
    g[:, 2] = 0
    return g


LRS = np.asarray([0.1, 0.2, 0.1, 0.3, 0.05])


@pytest.mark.parametrize("m, wd", [(0.0, 0.0), (0.0, 0.1), (0.9, 0.0), (0.9, 0.1)])
def test_sgd_is_pytorchs(m, wd):
    with jax.enable_x64(True):
        found = path(optimisers.sgd_momentum(m, wd) if m else optimisers.sgd(wd), LRS)
    theta, v = np.asarray([1.0, -2.0, 0.5]), np.zeros(3)
    for g, lr, seen in zip(gradients(), LRS, found, strict=True):
        v = m * v + g + wd * theta
        theta = theta - lr * v
        np.testing.assert_allclose(seen, theta, rtol=1e-14)


def test_adam_is_optaxs():
    with jax.enable_x64(True):
        found = path(optimisers.adam(), np.full(STEPS, 0.1))
        theta, reference = jnp.asarray([1.0, -2.0, 0.5]), optax.adam(0.1, eps_root=1e-16)
        state = reference.init(theta)
        for g, seen in zip(gradients(), found, strict=True):
            moves, state = reference.update(jnp.asarray(g), state, theta)
            theta = optax.apply_updates(theta, moves)
            np.testing.assert_allclose(seen, theta, rtol=1e-10)


def test_names():
    assert [optimisers.make(name).slope is not None for name in optimisers.NAMES] == [
        True,
        False,
        False,
    ]
    with pytest.raises(BadInput, match="config.inner.*momentum"):
        optimisers.make("adma")
