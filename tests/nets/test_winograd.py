"""Winograd's form of the 3x3 convolution is the convolution, to every order of derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.nets import conv as conv_lib
from jdd.nets import winograd
from jdd.nets.conv import conv


def data(h, w, dtype=jnp.float64, c=3, o=4):
    rng = np.random.default_rng([h, w])
    x = jnp.asarray(rng.normal(size=(2, h, w, c)), dtype)
    return x, jnp.asarray(rng.normal(size=(3, 3, c, o)), dtype)


def test_the_matrices_correlate_a_line():
    a, g, b = winograd.matrices()
    rng = np.random.default_rng(0)
    line, kernel = rng.normal(size=winograd.SIDE), rng.normal(size=3)
    np.testing.assert_allclose(
        a @ ((g @ kernel) * (b @ line)), np.correlate(line, kernel, "valid"), rtol=1e-12
    )


@pytest.mark.parametrize(("h", "w"), [pytest.param(8, 4, marks=pytest.mark.slow), (7, 5)])
def test_agrees_with_the_library_to_second_order(h, w):
    with jax.enable_x64(True):
        x, kernel = data(h, w)

        def everything(lowering):
            def loss(*p):
                y = jnp.tanh(conv(*p, 1, 1, lowering))
                return jnp.sum(y * y)

            def of(*p):
                grad = jax.grad(loss, (0, 1))
                along = jax.jvp(grad, p, tuple(map(jnp.sin, p)))[1]
                norm = jax.grad(lambda *q: sum(jnp.sum(g**2) for g in grad(*q)), (0, 1))
                return conv(*p, 1, 1, lowering), grad(*p), along, norm(*p)

            return jax.tree.leaves(jax.jit(of)(x, kernel))

        for ours, theirs in zip(everything("winograd"), everything("library"), strict=True):
            assert ours.dtype == jnp.float64 and ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "axes",
    [
        pytest.param((0, None), marks=pytest.mark.slow),
        (None, 0),
        pytest.param((0, 0), marks=pytest.mark.slow),
    ],
)
def test_agrees_under_vmap(axes):
    with jax.enable_x64(True):
        x, kernel = (
            v if axis is None else jnp.stack([v, 2 * v, v - 1])
            for v, axis in zip(data(6, 5), axes, strict=True)
        )

        def both(lowering):
            def loss(*p):
                return jnp.sum(jnp.sin(conv(*p, 1, 1, lowering)))

            return jax.jit(jax.vmap(jax.value_and_grad(loss, (0, 1)), axes))(x, kernel)

        for ours, theirs in zip(
            *(jax.tree.leaves(both(how)) for how in ("winograd", "library")), strict=True
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


def test_rounding_stays_near_that_of_sums_of_products():
    """The module's text: about three times theirs; the usual points would be near seven."""
    x, kernel = data(16, 16, jnp.float32, 64, 32)
    with jax.enable_x64(True):
        truth = np.asarray(conv(*(jnp.asarray(v, jnp.float64) for v in (x, kernel)), 1, 1))
    size = np.sqrt(np.mean(truth**2))
    errors = {
        how: np.sqrt(np.mean((np.asarray(conv(x, kernel, 1, 1, how)) - truth) ** 2)) / size
        for how in ("winograd", "library")
    }
    assert errors["winograd"] < 2e-6 and errors["winograd"] < 6 * errors["library"], errors


@pytest.mark.slow
def test_a_net_of_it_is_the_net(monkeypatch):
    """ConvNet of 64 channels: values and gradients with and without, in float32."""
    net = nets.make("ConvNet", (16, 16, 3), 3, width=64, depth=2)
    variables = net.init(jax.random.key(0))
    x = jnp.asarray(np.random.default_rng(1).normal(size=(2, 16, 16, 3)), jnp.float32)

    def loss(variables, x):
        return jnp.sum(jnp.sin(net.apply(variables, x, train=True).logits))

    def run():
        return jax.jit(jax.value_and_grad(lambda *p: loss(*p), (0, 1)))(variables, x)

    assert "winograd" in str(jax.make_jaxpr(lambda *p: loss(*p))(variables, x))
    ours = run()
    monkeypatch.setattr(conv_lib, "_on_cpu", lambda *_: "patches")
    for a, b in zip(*(jax.tree.leaves(tree) for tree in (ours, run())), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * float(jnp.abs(b).max() + 1))


def test_who_gets_it(monkeypatch):
    def used(c, o, few, backend="cpu", stride=1, dtype=jnp.float32, side=8):
        monkeypatch.setattr(conv_lib.jax, "default_backend", lambda: backend)
        x, kernel = jnp.zeros((1, side, side, c), dtype), jnp.zeros((3, 3, c, o), dtype)
        return "winograd" in str(jax.make_jaxpr(lambda *p: conv(*p, stride, 1, few=few))(x, kernel))

    assert used(64, 64, True)
    assert not used(64, 64, False) and not used(32, 64, True) and not used(64, 64, True, stride=2)
    assert not used(64, 64, True, dtype=jnp.bfloat16) and not used(64, 64, True, side=6)
    assert not used(64, 64, True, "gpu") and not used(64, 64, True, "tpu")
