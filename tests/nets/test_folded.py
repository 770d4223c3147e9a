"""Convolution and instance normalisation as one product, against one after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.nets import convnet
from jdd.nets.conv import conv
from jdd.nets.folded import conv_instance_norm
from jdd.nets.norm import standardise


def plain(x, kernel, scale, bias, padding):
    y = standardise(conv(x, kernel, 1, padding, "library") + 0.7, (1, 2)) * scale + bias
    n, h, w, o = y.shape
    windows = y.reshape(n, h // 2, 2, w // 2, 2, o).transpose(0, 2, 4, 1, 3, 5)
    return windows.reshape(n, 4, h * w // 4, o)


@pytest.mark.parametrize(("channels", "padding"), [(3, 1), (1, 3)])
def test_is_the_same_function_to_second_order(channels, padding):
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        args = (
            jnp.asarray(rng.normal(size=(2, 6, 8, channels)) + 3),
            jnp.asarray(rng.normal(size=(3, 3, channels, 5))),
            *(jnp.asarray(rng.normal(size=5)) for _ in range(2)),
        )

        def everything(run):
            def loss(*p):
                return jnp.sum(jnp.sin(run(*p, padding)))

            def of(*p):
                grad = jax.grad(loss, (0, 1, 2, 3))
                return run(*p, padding), grad(*p), jax.jvp(grad, p, tuple(map(jnp.cos, p)))[1]

            return jax.tree.leaves(jax.jit(of)(*args))

        # The plain form broadcasts scale and bias from rank 1.
        with jax.numpy_rank_promotion("allow"):
            wanted = everything(plain)
        for ours, theirs in zip(everything(conv_instance_norm), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"pool": "max"},
        *(pytest.param(o, marks=pytest.mark.slow) for o in ({}, {"act": "sigmoid"}, {"depth": 1})),
    ],
)
@pytest.mark.parametrize("shape", [(8, 8, 3), (6, 10, 1)])
def test_the_net_is_the_same_with_and_without(options, shape):
    """Taps need the normalisations' inputs, so with them the first block goes the plain way."""
    net = nets.make("ConvNet", shape, 3, **{"width": 27, "depth": 2, **options})
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), net.init(jax.random.key(0)))
        x = jnp.asarray(np.random.default_rng(1).normal(size=(2, *shape)))

        def run(taps):
            def loss(variables, x):
                return jnp.sum(jnp.sin(net.apply(variables, x, train=True, taps=taps).logits))

            value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(variables, x)
            return jax.tree.leaves((value, grads))

        folded, plain_ = run(False), run(True)
        for a, b in zip(folded, plain_, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_only_where_it_can(monkeypatch):
    used = []

    def spy(*args):
        used.append(1)
        return conv_instance_norm(*args)

    monkeypatch.setattr(convnet, "conv_instance_norm", spy)

    def folds(shape, **options):
        net = nets.make("ConvNet", shape, 3, depth=1, **options)
        variables = net.init(jax.random.key(0))
        used.clear()
        jax.eval_shape(net.apply, variables, jnp.zeros((1, *shape)))
        return bool(used)

    assert folds((8, 8, 3), width=27)
    assert not folds((8, 8, 3), width=26) and not folds((7, 8, 3), width=27)
    assert not folds((8, 8, 3), width=27, norm="batch")
    assert not folds((8, 8, 3), width=27, pool="none")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not folds((8, 8, 3), width=27)


@pytest.mark.slow
def test_rounding_on_what_images_are_like():
    """Smooth images and a kernel that sums to 0, the hard case: a digit or two, no more; no NaN."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 3, 16)
    smooth = np.sin(ramp[:, None, None] + 2 * ramp[None, :, None] + rng.normal(size=3))
    x = np.stack([smooth, np.ones_like(smooth)]) * 2 + 1
    laplace = np.zeros((3, 3, 3, 1))
    laplace[1, 1], laplace[0, 1], laplace[2, 1], laplace[1, 0], laplace[1, 2] = 1, *[-0.25] * 4
    args = (x, laplace, np.ones(1), np.zeros(1))

    def run(dtype):
        cast = [jnp.asarray(a, dtype) for a in args]
        value, back = jax.vjp(lambda *p: conv_instance_norm(*p, 1), *cast)
        return value, back(jnp.cos(value))[1]

    found = run(jnp.float32)
    with jax.enable_x64(True):
        truth = run(jnp.float64)
    for ours, exact in zip(found, truth, strict=True):
        assert np.all(np.isfinite(ours))
        np.testing.assert_allclose(ours, exact, atol=1e-3 * float(np.abs(exact).max()))
