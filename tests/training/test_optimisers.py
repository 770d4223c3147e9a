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


def newton_schulz(g: np.ndarray) -> np.ndarray:
    """Return O(G) by the formula: the wide one of G and its transpose, five quintic steps."""
    if g.shape[0] > g.shape[1]:
        return newton_schulz(g.T).T
    x = g / (np.linalg.norm(g) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_muon_is_newton_schulz_of_matrices_and_nadam_of_the_rest(decay):
    rng, wd, lr = np.random.default_rng(1), 0.1, 0.05
    theta = {
        "kernel": rng.standard_normal((3, 3, 2, 4)),
        "dense": rng.standard_normal((6, 4)),
        "bias": rng.standard_normal(4),
    }
    found, momentum = {k: v.copy() for k, v in theta.items()}, dict.fromkeys(theta, 0.0)
    with jax.enable_x64(True):
        optimizer = optimisers.make("muon", weight_decay=wd, decay=decay)
        ours = jax.tree.map(jnp.asarray, theta)
        state, update = optimizer.init(ours), jax.jit(optimizer.update)
        m = v = np.zeros(4)
        for t in range(1, 4):
            g = {k: rng.standard_normal(a.shape) for k, a in theta.items()}
            ours, state = update(g, state, ours, {"lr": lr})
            for name in ("kernel", "dense"):
                momentum[name] = 0.95 * momentum[name] + 0.05 * g[name]
                ahead = momentum[name] * 0.95 / (1 - 0.95 ** (t + 1))
                matrix = (ahead + 0.05 * g[name] / (1 - 0.95**t)).reshape(-1, 4)
                move = 0.2 * np.sqrt(max(matrix.shape)) * newton_schulz(matrix)
                move = move.reshape(theta[name].shape) + wd * found[name]
                found[name] = found[name] - lr * move
            m, v = 0.9 * m + 0.1 * g["bias"], 0.999 * v + 0.001 * g["bias"] ** 2
            ahead = 0.9 * m / (1 - 0.9 ** (t + 1)) + 0.1 * g["bias"] / (1 - 0.9**t)
            move = ahead / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            found["bias"] = found["bias"] - lr * (move + (decay == "all") * wd * found["bias"])
        for name, expected in found.items():
            np.testing.assert_allclose(ours[name], expected, rtol=1e-6, err_msg=name)
