"""NF-ResNet against formulas in NumPy, and its derivatives against differences."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.errors import BadInput
from jdd.nets import nfresnet

DRAW = np.random.default_rng(3)


def shapes(name, shape, **options):
    net = nets.make(name, shape, 5, **options)
    x = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    return net, variables, jax.eval_shape(lambda v, x: net.apply(v, x, taps=True), variables, x)


def correlated(x, kernel, bias):
    """A 3x3 convolution of padding 1 and stride 1, place by place."""
    n, h, w, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = np.zeros((n, h, w, kernel.shape[-1]))
    for i in range(h):
        for j in range(w):
            window = padded[:, i : i + 3, j : j + 3]
            y[:, i, j] = np.tensordot(window, kernel, 3)
    return y + bias


def standard(kernel, gain):
    """The standardised kernel, one output at a time."""
    found = np.empty_like(kernel)
    for o in range(kernel.shape[-1]):
        own = kernel[..., o]
        scale = math.sqrt(own.size * (own.var() + 1e-5))
        found[..., o] = gain[o] * (own - own.mean()) / scale
    return found


def test_a_block_is_its_formula():
    net = nets.make("NFResNet", (6, 6, 4), 3, width=4, depth=10)
    with jax.enable_x64(True):
        variables = jax.tree.map(
            lambda v: jnp.asarray(DRAW.normal(size=v.shape)),
            jax.eval_shape(net.init, jax.random.key(0)),
        )
        x = DRAW.normal(size=(2, 6, 6, 4))
        found = jax.jit(lambda v, x: net.apply(v, x, taps=True).taps["block1"])
        params = jax.tree.map(np.asarray, variables["params"])
        stem, block = params["conv0"], params["stage1_1"]
        wanted = correlated(x, standard(stem["kernel"], stem["gain"]), stem["bias"])
        y = wanted
        for name in ("conv1", "conv2"):
            layer = block[name]
            y = 1.7139588594436646 * np.maximum(y, 0)
            y = correlated(y, standard(layer["kernel"], layer["gain"]), layer["bias"])
        block1 = found(variables, jnp.asarray(x))
        np.testing.assert_allclose(block1, wanted + 0.2 * y, rtol=1e-10, atol=1e-10)


def test_expected_deviations_grow_and_start_again_with_a_stage():
    found = nfresnet.deviations((3, 2))
    wanted = [[1, 1.04, 1.08], [1.12, 1.04]]
    for stage, variances in zip(found, wanted, strict=True):
        np.testing.assert_allclose(np.square(stage), variances, rtol=1e-12)


def test_the_variance_of_a_net_at_its_start_is_the_expected_one():
    net = nets.make("NFResNet", (16, 16, 3), 3, width=64)
    x = jax.random.normal(jax.random.key(1), (8, 16, 16, 3))

    @jax.jit
    def variances(variables, x):
        taps = net.apply(variables, x, taps=True).taps
        return [jnp.var(taps[name], axis=(0, 1, 2)).mean() for name in ("block1", "block2")]

    first, second = variances(net.init(jax.random.key(0)), x)
    assert first == pytest.approx(1.04, rel=0.1) and second / first == pytest.approx(
        1.08 / 1.04, rel=0.03
    )


@pytest.mark.parametrize("act", nfresnet.GAMMA)
def test_gamma_makes_the_variance_of_an_activation_one(act):
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)
    weights = weights / weights.sum()
    y = np.asarray(nets.ACTIVATIONS[act](jnp.asarray(nodes, jnp.float32)), np.float64)
    var = weights @ y**2 - (weights @ y) ** 2
    assert nfresnet.GAMMA[act] == pytest.approx(1 / math.sqrt(var), rel=5e-3)


@pytest.mark.parametrize(
    ("name", "shape", "options", "last"),
    [
        ("NFResNet", (8, 8, 1), {"width": 4, "depth": 10}, (1, 1, 32)),
        ("NFResNet", (33, 20, 3), {"width": 4, "depth": 26}, (5, 3, 128)),
        ("NFResNet", (64, 64, 3), {"width": 16}, (8, 8, 128)),
        ("NFResNet_IN", (224, 224, 3), {}, (7, 7, 2048)),
    ],
)
def test_shapes(name, shape, options, last):
    _, variables, out = shapes(name, shape, **options)
    assert out.logits.shape == (2, 5) and out.features.shape == (2, last[-1])
    blocks = [a for key, a in out.taps.items() if key.startswith("block")]
    assert (2, *last) in {a.shape for a in blocks} and out.stats == {}
    assert set(variables) == {"params"}


def test_parameters_of_the_published_net():
    net = nets.make("NFResNet_IN", (224, 224, 3), 1000)
    shapes_of = jax.eval_shape(net.init, jax.random.key(0))["params"]
    # ResNet-50's 25.557 million without batch norm's 53120, with 26560 gains and as many biases.
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes_of)) == 25_557_032


def test_odd_maps_are_halved_as_a_convolution_of_stride_2_does():
    x = DRAW.normal(size=(1, 3, 5, 2))
    found = np.asarray(nfresnet._halved(jnp.asarray(x, jnp.float32)))
    assert found.shape == (1, 2, 3, 2)
    np.testing.assert_allclose(found[0, 0, 0], x[0, :2, :2].mean((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(found[0, 1, 0], x[0, 2, :2].mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[0, 1, 2], x[0, 2, 4], rtol=1e-5)


def test_skipinit_starts_as_the_shortcuts_alone():
    net = nets.make("NFResNet", (8, 8, 3), 3, width=4, depth=10, skipinit=True)
    variables = net.init(jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    logits = jax.jit(lambda variables: net.apply(variables, x).logits)
    start = logits(variables)
    moved = jax.tree.map(jnp.copy, variables)
    moved["params"]["stage2_1"]["conv1"]["kernel"] *= -1
    np.testing.assert_array_equal(start, logits(moved))
    moved["params"]["stage2_1"]["skipinit_gain"] += 1
    assert np.abs(start - logits(moved)).max() > 1e-4


@pytest.mark.parametrize("act", ["relu", pytest.param("swish", marks=pytest.mark.slow)])
def test_first_and_second_derivatives_are_those_of_differences(act):
    block = nfresnet.Block(8, 2, 1.02, True, act, True)
    with jax.enable_x64(True):
        x = jnp.asarray(DRAW.normal(size=(2, 3, 4, 5)))
        shapes = jax.eval_shape(lambda x: block.init(jax.random.key(0), x), x)
        variables, step = (
            jax.tree.map(lambda v: jnp.asarray(DRAW.normal(size=v.shape)), shapes) for _ in "ab"
        )
        towards = jnp.asarray(DRAW.normal(size=x.shape))

        @jax.jit
        def value_slope_and_mixed(t, s):
            def loss(t, s):
                moved = jax.tree.map(lambda v, d: v + t * d, variables, step)
                return jnp.sum(jnp.square(block.apply(moved, x + s * towards)))

            slope = jax.grad(loss)
            return loss(t, s), slope(t, s), jax.jvp(slope, (t, s), (0.0, 1.0))[1]

        eps = 1e-6
        (above, *_), (below, *_) = (value_slope_and_mixed(t, 0.0) for t in (eps, -eps))
        _, slope, mixed = value_slope_and_mixed(0.0, 0.0)
        np.testing.assert_allclose(slope, (above - below) / (2 * eps), rtol=1e-6)
        (_, above, _), (_, below, _) = (value_slope_and_mixed(0.0, s) for s in (eps, -eps))
        np.testing.assert_allclose(mixed, (above - below) / (2 * eps), rtol=1e-6)


def test_a_depth_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match=r"config.net.depth: 12; one of 10, 18, 26, 50, 101"):
        nets.make("NFResNet", (8, 8, 3), 3, depth=12)
    with pytest.raises(BadInput, match="config.net.skipinit"):
        nets.make("NFResNet", (8, 8, 3), 3, skipinit=2)
