"""The convolution of three products against XLA's own, of every order of differentiation."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.nets import bilinear, conv

DRAW = np.random.default_rng(5)
# (h, w), c, o, kernel, stride, padding
CASES = {
    "plain": ((6, 5), 9, 10, 3, 1, 1),
    "few inputs": ((4, 6), 3, 9, 3, 1, 1),
    "few outputs": ((4, 6), 9, 3, 3, 1, 1),
    "halved": ((6, 8), 3, 4, 3, 2, 1),
    "halved, odd": ((7, 5), 3, 4, 3, 2, 1),
    "stem": ((10, 9), 3, 4, 7, 2, 3),
    "stride of three": ((8, 7), 2, 3, 4, 3, 1),
    "stride over the kernel": ((8, 7), 2, 3, 2, 3, 0),
    "even kernel, wide margin": ((4, 4), 2, 3, 2, 1, 2),
    "map under the kernel": ((2, 2), 3, 4, 3, 1, 1),
}


@pytest.mark.parametrize("image", [(4, 8), pytest.param((7, 5), marks=pytest.mark.slow)])
def test_winograds_form_is_the_convolution(image):
    """To two orders in float64: the least sizes are for speed alone."""
    with jax.enable_x64(True):
        x = jnp.asarray(DRAW.normal(size=(2, *image, 2)))
        kernel = jnp.asarray(DRAW.normal(size=(3, 3, 2, 3)))
        directions = tuple(jnp.asarray(DRAW.normal(size=a.shape)) for a in (x, kernel))
        grid = bilinear.Grid((3, 3), 1, 1, image, winograd=True)
        found, wanted = (
            jax.jit(lambda x, k, fn=fn: orders(fn, x, k, directions))(x, kernel)
            for fn in (
                lambda x, k: bilinear._f.bind(x, k, grid=grid),
                lambda x, k: conv.conv(x, k, 1, 1, lowering="library"),
            )
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_winograds_form_is_taken_where_it_is_faster():
    def program(image, channels, **how):
        x = jax.ShapeDtypeStruct((1, *image, channels), jnp.float32)
        kernel = jax.ShapeDtypeStruct((3, 3, channels, channels), jnp.float32)
        return str(jax.make_jaxpr(lambda x, k: bilinear.conv(x, k, 1, 1, **how))(x, kernel))

    assert "winograd=True" in program((8, 8), 32, winograd=True)
    for other in (((4, 8), 32), ((8, 8), 16)):
        assert "winograd=True" not in program(*other, winograd=True)
    assert "winograd=True" not in program((8, 8), 32)


def operands(case, dtype, images=3):
    image, c, o, size, stride, padding = CASES[case]
    x = jnp.asarray(DRAW.normal(size=(images, *image, c)), dtype)
    return x, jnp.asarray(DRAW.normal(size=(size, size, c, o)), dtype), stride, padding


def orders(fn, x, kernel, directions):
    """Value, gradient, the gradient's tangent, and the gradient of the gradient's product."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(fn(x, kernel)))

    def along(x, kernel):
        g = jax.grad(loss, (0, 1))(x, kernel)
        return sum(jnp.sum(a * b) for a, b in zip(g, directions, strict=True))

    gradient, tangent = jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), directions)
    return fn(x, kernel), gradient, tangent, jax.grad(along, (0, 1))(x, kernel)


@pytest.mark.parametrize("case", CASES)
def test_values_and_two_orders_of_derivatives_are_those_of_the_library(case):
    with jax.enable_x64(True):
        x, kernel, stride, padding = operands(case, jnp.float64)
        directions = tuple(jnp.asarray(DRAW.normal(size=a.shape)) for a in (x, kernel))
        found, wanted = (
            jax.jit(lambda x, k, fn=fn: orders(fn, x, k, directions))(x, kernel)
            for fn in (
                lambda x, k: bilinear.conv(x, k, stride, padding),
                lambda x, k: conv.conv(x, k, stride, padding, lowering="library"),
            )
        )
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", ["few inputs", "few outputs", "halved, odd"])
def test_float32_takes_the_library_and_is_as_exact(case):
    x, kernel, stride, padding = operands(case, jnp.float32)

    def both(fn):
        y, pull = jax.vjp(fn, x, kernel)
        return y, *pull(jnp.cos(y))

    found = both(lambda x, k: bilinear.conv(x, k, stride, padding))
    wanted = both(lambda x, k: conv.conv(x, k, stride, padding, lowering="library"))
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    text = str(
        jax.jit(lambda x, k: bilinear.conv(x, k, stride, padding)).lower(x, kernel).as_text()
    )
    assert "convolution" in text


def test_parts_of_a_batch_add_up(monkeypatch):
    x, kernel, stride, padding = operands("halved", jnp.float32, images=7)

    def gradient(k):
        return jnp.sum(jnp.square(bilinear.conv(x, k, stride, padding)))

    whole = jax.jit(jax.grad(gradient))(kernel)
    monkeypatch.setattr(bilinear, "_PART", 1)
    assert "while" in jax.jit(jax.grad(lambda k: gradient(k))).lower(kernel).as_text()
    parts = jax.jit(jax.grad(lambda k: gradient(k)))(kernel)
    np.testing.assert_allclose(parts, whole, rtol=1e-4)


@pytest.mark.parametrize("axes", [(0, None), (None, 3), (1, 0)])
def test_vmap_is_one_convolution_after_another(axes):
    x, kernel, stride, padding = operands("halved", jnp.float32)
    stacked = [
        a if i is None else jnp.stack([a, 2 * a], i) for a, i in zip((x, kernel), axes, strict=True)
    ]
    y = bilinear.conv(x, kernel, stride, padding)
    scale = 2 ** sum(i is not None for i in axes)
    found = jax.vmap(lambda x, k: bilinear.conv(x, k, stride, padding), axes)(*stacked)
    np.testing.assert_allclose(found, jnp.stack([y, scale * y]), rtol=1e-5, atol=1e-5)


def test_a_kernel_that_does_not_fit_is_refused():
    with pytest.raises(conv.TooSmall, match="a kernel of 3x3 does not fit a map of 2x5"):
        bilinear.conv(jnp.zeros((1, 2, 5, 1)), jnp.zeros((3, 3, 1, 1)))
