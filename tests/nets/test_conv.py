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
CASES += [(1, 1, 0, 4, 5), (1, 2, 0, 7, 6), (3, 2, 1, 1, 1), (3, 1, 1, 2, 2), (5, 1, 2, 3, 2)]


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
    split = stride == 1 and 1 < size
    for lowering in ("library", "patches", *(["split"] if split else [])):
        run = functools.partial(conv, stride=stride, padding=padding, lowering=lowering)
        y, *grads = jax.jit(functools.partial(_with_gradients, run))(x, kernel)
        assert y.shape[1:3] == tuple((s + 2 * padding - size) // stride + 1 for s in (h, w))
        results.append((y, *grads))
    for other in results[1:]:
        for found, library in zip(other, results[0], strict=True):
            np.testing.assert_allclose(found, library, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0)])
def test_lowerings_agree_under_vmap(axes):
    x, kernel = _data(3, 6, 5)
    x, kernel = (
        v if axis is None else jnp.stack([v, 2 * v, v - 1])
        for v, axis in zip((x, kernel), axes, strict=True)
    )

    def run(lowering):
        def one(x, kernel):
            return _with_gradients(functools.partial(conv, padding=1, lowering=lowering), x, kernel)

        return jax.jit(jax.vmap(one, axes))(x, kernel)

    library = run("library")
    for lowering in ("patches", "split"):
        for found, wanted in zip(run(lowering), library, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("padding", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 3))])
@pytest.mark.parametrize("wide", ["in", "out"])
def test_second_derivatives_agree_in_float64(padding, wide):
    """jvp of grad and grad of grad, of kernels that widen and that narrow."""
    with jax.enable_x64(True):
        x, kernel = _data(3, 6, 5, jnp.float64)
        if wide == "in":
            kernel = kernel[..., :2]

        def products(lowering):
            def loss(kernel, x):
                y = jnp.tanh(conv(x, kernel, 1, padding, lowering))
                return (y * y).sum()

            grad = jax.grad(loss, (0, 1))

            def norm(*p):
                return sum((g**2).sum() for g in grad(*p))

            def all_of_them(*p):
                directions = tuple(map(jnp.sin, p))
                return *jax.jvp(grad, p, directions)[1], *jax.grad(norm, (0, 1))(*p)

            return jax.jit(all_of_them)(kernel, x)

        library = products("library")
        for lowering in ("patches", "split"):
            for one, other in zip(products(lowering), library, strict=True):
                assert one.dtype == jnp.float64
                np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.slow
def test_kernel_gradient_in_chunks(monkeypatch):
    """Many images go through in parts, the last one as short as it comes."""
    rng = np.random.default_rng(1)
    for images in (7, 8):
        x = jnp.asarray(rng.normal(size=(images, 6, 6, 3)), jnp.float32)
        kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)), jnp.float32)
        run = functools.partial(conv, padding=1, lowering="split")
        whole = _with_gradients(run, x, kernel)
        with monkeypatch.context() as patch:
            patch.setattr(conv_lib, "_CHUNK", 2 * 4 * 36 * 27)
            jax.clear_caches()
            parts = _with_gradients(run, x, kernel)
        jax.clear_caches()
        for one, other in zip(whole, parts, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_only_the_cpu_has_a_way_of_its_own(monkeypatch):
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
        conv(x, kernel, padding=2, lowering="fourier")
    with pytest.raises(ValueError, match="3x3"):
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
