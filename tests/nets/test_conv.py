"""The two lowerings of the convolution are one function; pooling by reshape."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.nets import conv as conv_lib
from jdd.nets.conv import TooSmall, avg_pool, conv, max_pool

# size, kernel, stride, padding, h, w
CASES = [(3, 1, 1, 8, 8), (3, 1, 3, 5, 6), (5, 1, 0, 7, 9), (5, 1, 4, 6, 6), (3, 2, 1, 9, 8)]
CASES += [(1, 1, 0, 4, 5), (1, 2, 0, 7, 6), (3, 2, 1, 1, 1)]


def _data(size, h, w, dtype=jnp.float32):
    rng = np.random.default_rng([size, h, w])
    x = jnp.asarray(rng.normal(size=(2, h, w, 3)), dtype)
    return x, jnp.asarray(rng.normal(size=(size, size, 3, 4)), dtype)


def _with_gradients(run, x, kernel):
    y, back = jax.vjp(run, x, kernel)
    return y, *back(jnp.sin(y))


@pytest.mark.parametrize(("size", "stride", "padding", "h", "w"), CASES)
def test_lowerings_agree_in_values_and_gradients(size, stride, padding, h, w):
    x, kernel = _data(size, h, w)
    results = []
    for lowering in ("patches", "library"):
        run = functools.partial(conv, stride=stride, padding=padding, lowering=lowering)
        y, *grads = jax.jit(functools.partial(_with_gradients, run))(x, kernel)
        assert y.shape[1:3] == tuple((s + 2 * padding - size) // stride + 1 for s in (h, w))
        results.append((y, *grads))
    for patches, library in zip(*results, strict=True):
        np.testing.assert_allclose(patches, library, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_lowerings_agree_under_vmap(axes):
    x, kernel = _data(3, 6, 5)
    x, kernel = (
        v if axis is None else jnp.stack([v, 2 * v, v - 1])
        for v, axis in zip((x, kernel), axes, strict=True)
    )
    one, other = (
        jax.jit(jax.vmap(functools.partial(conv, padding=1, lowering=lowering), axes))(x, kernel)
        for lowering in ("patches", "library")
    )
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_second_derivatives_agree_in_float64():
    with jax.enable_x64(True):
        x, kernel = _data(3, 5, 5, jnp.float64)

        def hessian_product(lowering):
            def loss(kernel, x):
                y = jnp.tanh(conv(x, kernel, 2, 1, lowering))
                return (y * y).sum()

            grad = jax.grad(loss, (0, 1))
            return jax.jit(lambda *p: jax.jvp(grad, p, tuple(map(jnp.sin, p)))[1])(kernel, x)

        for one, other in zip(hessian_product("patches"), hessian_product("library"), strict=True):
            assert one.dtype == jnp.float64
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_cpu_takes_patches(monkeypatch):
    x, kernel = _data(3, 6, 6)
    for backend, expected in (("cpu", False), ("gpu", True), ("tpu", True)):
        monkeypatch.setattr(conv_lib.jax, "default_backend", lambda backend=backend: backend)
        assert (
            "conv_general_dilated" in str(jax.make_jaxpr(lambda x, k: conv(x, k))(x, kernel))
        ) == expected


def test_bad_calls():
    x, kernel = _data(5, 4, 4)
    with pytest.raises(TooSmall, match="5x5"):
        conv(x, kernel)
    with pytest.raises(ValueError, match="auto"):
        conv(x, kernel, padding=2, lowering="winograd")
    with pytest.raises(TooSmall):
        avg_pool(x[:, :1])


@pytest.mark.parametrize("shape", [(4, 6), (5, 7), (2, 3)])
def test_pooling(shape):
    x = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    h, w = shape[0] // 2, shape[1] // 2
    windows = np.stack([x[:, a : 2 * h : 2, b : 2 * w : 2] for a in (0, 1) for b in (0, 1)])
    np.testing.assert_allclose(avg_pool(jnp.asarray(x)), windows.mean(0), atol=1e-6)
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), windows.max(0))
    grad = jax.grad(lambda x: avg_pool(x).sum())(jnp.asarray(x))
    assert np.all(grad[:, : 2 * h, : 2 * w] == 0.25)
    assert np.all(grad[:, 2 * h :] == 0) and np.all(grad[:, :, 2 * w :] == 0)


def test_max_pooling_picks_the_first_and_keeps_nan():
    ties = jnp.zeros((1, 2, 2, 1))
    grad = jax.grad(lambda x: max_pool(x).sum())(ties)
    np.testing.assert_array_equal(grad[0, :, :, 0], [[1, 0], [0, 0]])
    for place in range(4):
        one_nan = ties.reshape(-1).at[place].set(jnp.nan).reshape(ties.shape)
        assert jnp.isnan(max_pool(one_nan)).all()
