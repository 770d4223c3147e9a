"""The meta-gradient against float64 finite differences and against ordinary reverse mode."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.augment import dsa
from jdd.errors import BadInput
from jdd.inner import optim, unroll
from jdd.matching.losses import cross_entropy
from jdd.matching.trajectory import trajectory_distance

STEPS, CLASSES, SHAPE = 3, 3, (8, 8, 3)


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)


def make_loss(how: str, strategy: str, whiten: bool):
    """Return ``f(images, lr)``: the trajectory distance of a student of three steps."""
    # Sigmoid: finite differences of a ReLU net can straddle a kink.
    net = nets.make("ConvNet", SHAPE, CLASSES, width=4, depth=2, act="sigmoid")
    start = double(net.init(jax.random.key(0))["params"])
    target = double(net.init(jax.random.key(1))["params"])
    y = jax.nn.one_hot(jnp.arange(CLASSES), CLASSES, dtype=jnp.float64)
    d = int(np.prod(SHAPE))
    w = np.eye(d) + 0.3 * np.random.default_rng(0).standard_normal((d, d)) / np.sqrt(d)
    matrix = jnp.asarray(w @ w.T) if whiten else None

    def inner(theta, images, fixed):
        x = images if matrix is None else (images.reshape(-1, d) @ matrix).reshape(images.shape)
        x = dsa.dsa(fixed, x, strategy)
        return cross_entropy(net.apply({"params": theta}, x, train=True).logits, y)

    def loss(images, lr):
        keys = jax.random.split(jax.random.key(3), STEPS)
        rates = {"lr": jnp.broadcast_to(lr, (STEPS,))}
        student = unroll.unroll(inner, optim.sgd(), start, rates, images, keys, how)
        return trajectory_distance(student, target, start)

    return loss


def images_and_rate():
    draw = np.random.default_rng(1)
    return jnp.asarray(draw.standard_normal((CLASSES, *SHAPE))), jnp.asarray(0.7)


@pytest.mark.parametrize("strategy", ["none", "color_crop_cutout_flip_scale_rotate"])
@pytest.mark.parametrize("whiten", [False, True], ids=["plain", "zca"])
def test_meta_gradient_is_exact(strategy, whiten):
    with jax.enable_x64(True):
        x, lr = images_and_rate()
        exact = jax.jit(jax.grad(make_loss("mixed", strategy, whiten), argnums=(0, 1)))(x, lr)
        plain = jax.jit(jax.grad(make_loss("reverse", strategy, whiten), argnums=(0, 1)))(x, lr)
        for a, b in zip(exact, plain, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max()))
        loss = jax.jit(make_loss("mixed", strategy, whiten))
        draw = np.random.default_rng(2)
        for _ in range(3):
            v = jnp.asarray(draw.standard_normal(x.shape))
            h = 1e-5
            numeric = (loss(x + h * v, lr) - loss(x - h * v, lr)) / (2 * h)
            np.testing.assert_allclose(jnp.vdot(exact[0], v), numeric, rtol=1e-5)
        numeric = (loss(x, lr + 1e-6) - loss(x, lr - 1e-6)) / 2e-6
        np.testing.assert_allclose(exact[1], numeric, rtol=1e-5)


def test_ways_agree_and_values_do_not_depend_on_them():
    with jax.enable_x64(True):
        x, lr = images_and_rate()
        found = {
            how: jax.jit(jax.value_and_grad(make_loss(how, "color_flip", False)))(x, lr)
            for how in unroll.WAYS
        }
        for value, grad in found.values():
            np.testing.assert_allclose(value, found["reverse"][0], rtol=1e-12)
            np.testing.assert_allclose(grad, found["reverse"][1], rtol=1e-10, atol=1e-14)


def scalar_problem(how: str):
    """The facts' scalar case: l = (theta x - 1)^2 / 2, beta 0.1, theta0 = 1, theta* = 0.5."""

    def inner(theta, xs, j):
        return 0.5 * (theta * xs[j] - 1) ** 2

    def loss(xs):
        rates = {"lr": jnp.full((2,), 0.1)}
        end = unroll.unroll(inner, optim.sgd(), jnp.asarray(1.0), rates, xs, jnp.arange(2), how)
        return (end - 0.5) ** 2

    return loss


@pytest.mark.parametrize("how", unroll.WAYS)
def test_known_scalar_case(how):
    with jax.enable_x64(True):
        grad = jax.grad(scalar_problem(how))(jnp.asarray([1.0, 2.0]))
        np.testing.assert_allclose(grad, [-0.036, -0.18], rtol=1e-9)


def test_hyper_per_step_and_second_linearity_path():
    """An optimiser that is not linear in g takes the other branch of the rule."""

    def update(g, state, theta, hyper):
        return jax.tree.map(lambda p, d: p - hyper["lr"] * jnp.tanh(d), theta, g), state + 1

    bent = optim.InnerOptimizer(lambda theta: jnp.zeros(()), update, linear=False)

    def inner(theta, data, j):
        return jnp.sum(jnp.sin(theta * data) ** 2) * (1 + j)

    def loss(data, lrs, how):
        end = unroll.unroll(inner, bent, jnp.arange(3.0), {"lr": lrs}, data, jnp.arange(2.0), how)
        return jnp.sum(end**2)

    with jax.enable_x64(True):
        args = (jnp.asarray([0.3, 0.7, 1.1]), jnp.asarray([0.1, 0.2]))
        mixed = jax.grad(loss, argnums=(0, 1))(*args, "mixed")
        plain = jax.grad(loss, argnums=(0, 1))(*args, "reverse")
        for a, b in zip(mixed, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


def test_unknown_way_is_bad_input():
    with pytest.raises(BadInput, match="config.unroll.*mixed"):
        scalar_problem("revers")(jnp.asarray([1.0, 2.0]))
