"""The nets of SRe2L, G-VBSM and RDED: sizes, agreement with PyTorch, the depthwise convolution."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.errors import BadInput
from jdd.nets import conv as conv_lib
from jdd.nets.base import Depthwise, draw
from jdd.nets.conv import TooSmall, depthwise, overlapping_max_pool
from jdd.nets.mobilenet import InvertedResidual, relu6, rounded
from jdd.nets.resnet import Bottleneck
from jdd.nets.shufflenet import Unit, shuffle
from jdd.nets.wideresnet import Preactivated

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import net_cases  # noqa: E402

QUICK = {"xla_backend_optimization_level": 0}
IMAGENET, RGB = (224, 224, 3), (32, 32, 3)


def shapes_of(net):
    return jax.eval_shape(net.init, jax.random.key(0))


def count(name, shape, classes, **options):
    params = shapes_of(nets.make(name, shape, classes, **options))["params"]
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def at(tree, path):
    for name in path.split("/"):
        tree = tree[name]
    return tree


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("ResNet18BN_IN", {}, 11_689_512),
        ("ResNet50BN_IN", {}, 25_557_032),
        ("ResNet50BN", {}, 25_557_032 - (49 - 9) * 3 * 64),
        ("MobileNetV2", {}, 3_504_872),
        ("ShuffleNetV2", {}, 1_366_792),
        ("ShuffleNetV2", {"width": 116}, 2_278_604),
    ],
)
def test_parameters_are_as_published(name, options, expected):
    """Those of torchvision's nets."""
    assert count(name, IMAGENET, 1000, **options) == expected


@pytest.mark.parametrize("width", [16, 5])
def test_parameters_of_the_wide_net(width):
    def group(c, d):  # two blocks, the first one with a 1x1 convolution beside it
        return 9 * (c * d + 3 * d * d) + c * d + 2 * (c + 3 * d)

    w = [width, 2 * width, 4 * width, 8 * width]
    expected = 27 * width + sum(group(*pair) for pair in zip(w, w[1:], strict=False))
    expected += 2 * w[3] + 10 * (w[3] + 1)
    assert count("WRN16_2", RGB, 10, width=width) == expected
    assert width != 16 or expected == 691_674


# Blocks, and the maps of the first and the last, for 64x64 and for 32x32.
@pytest.mark.parametrize(
    ("name", "blocks", "large", "small", "features"),
    [
        ("ResNet18BN_IN", 8, (16, 2), (8, 1), 512),
        ("ResNet50BN", 16, (64, 8), (32, 4), 2048),
        ("ResNet50BN_IN", 16, (16, 2), (8, 1), 2048),
        ("MobileNetV2", 17, (32, 2), (32, 4), 1280),
        ("ShuffleNetV2", 16, (8, 2), (16, 4), 1024),
        ("WRN16_2", 6, (64, 16), (32, 8), 128),
    ],
)
def test_shapes(name, blocks, large, small, features):
    for side, maps in ((64, large), (32, small)):
        net = nets.make(name, (side, side, 3), 7)
        shapes, x = shapes_of(net), jax.ShapeDtypeStruct((2, side, side, 3), jnp.float32)
        out = jax.eval_shape(partial(net.apply, train=True, taps=True), shapes, x)
        assert out.logits.shape == (2, 7) and out.features.shape == (2, features)
        assert jax.tree.map(jnp.shape, out.stats) == jax.tree.map(jnp.shape, shapes["batch_stats"])
        norms = {
            jax.tree_util.keystr(path[:-1], simple=True, separator="/")
            for path, _ in jax.tree_util.tree_leaves_with_path(shapes["batch_stats"])
        }
        assert norms | {f"block{i}" for i in range(1, blocks + 1)} == set(out.taps)
        found = tuple(out.taps[f"block{i}"].shape[1] for i in (1, blocks))
        assert found == maps


@pytest.mark.parametrize("case", net_cases.DECOUPLED)
def test_agrees_with_pytorch(case):
    name, shape, options = net_cases.DECOUPLED[case]
    net = nets.make(name, shape, net_cases.CLASSES, **options)
    drawn = net_cases.variables(shapes_of(net))
    variables = jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), drawn)
    x = jnp.asarray(net_cases.images(case, shape), jnp.float32)

    out = jax.jit(partial(net.apply, train=True), compiler_options=QUICK)(variables, x)
    with np.load(GOLDEN / "decoupled_nets.npz") as golden:
        _close(out.logits, golden[f"{case}/train/logits"])
        stats = [key for key in golden.files if key.startswith(f"{case}/train/stats/")]
        assert len(stats) == 2
        for key in stats:
            _close(at(out.stats, key.partition("/stats/")[2]), golden[key])
        if case == "wrn":
            evaluate = jax.jit(net.apply, compiler_options=QUICK)
            _close(evaluate(variables, x).logits, golden[f"{case}/logits"])


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=5e-4, atol=3e-4 * np.abs(expected).max())


BLOCKS = {
    "bottleneck": Bottleneck(2, 2, "batch"),
    "inverted": InvertedResidual(3, 1, 2),
    "unit": Unit(6, 2),
    "preactivated": Preactivated(3, 1),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_gradients_of_a_block(name):
    """Finite, and as steep as a finite difference says, in images and parameters."""
    block, rng = BLOCKS[name], np.random.default_rng(0)
    init = partial(block.init, train=False)
    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 5, 4, 3)))
    with jax.enable_x64(True):
        drawn = {k: v for k, v in net_cases.variables(shapes).items() if k != "taps"}
        variables = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), drawn)
        point = variables["params"], jnp.asarray(rng.normal(size=(2, 5, 4, 3)))
        along = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape)), point)

        def value(step):
            params, x = jax.tree.map(lambda p, v: p + step * v, point, along)
            y, _ = block.apply(
                {**variables, "params": params}, x, True, mutable=["batch_stats", "taps"]
            )
            return (jnp.sin(y) * y).sum()

        run, eps = jax.jit(jax.value_and_grad(value), compiler_options=QUICK), 1e-6
        (_, slope), (up, _), (down, _) = (run(step) for step in (0.0, eps, -eps))
        assert jnp.isfinite(slope) and abs(slope) > 0.1
        np.testing.assert_allclose(slope, (up - down) / (2 * eps), rtol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_depthwise_is_the_librarys(stride, dtype):
    with jax.enable_x64(dtype == "float64"):
        rng = np.random.default_rng(stride)
        x = jnp.asarray(rng.normal(size=(2, 7, 6, 5)), dtype)
        kernel = jnp.asarray(rng.normal(size=(3, 3, 1, 5)), dtype)

        def products(lowering):
            def run(x, kernel):
                y, back = jax.vjp(lambda *a: depthwise(*a, stride, 1, lowering), x, kernel)
                return y, *back(jnp.sin(y))

            return jax.jit(run, compiler_options=QUICK)(x, kernel)

        tolerance = 1e-4 if dtype == "float32" else 1e-12
        for found, wanted in zip(products("shifts"), products("library"), strict=True):
            assert found.dtype == wanted.dtype == dtype
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


def test_depthwise_chooses_by_the_device_and_refuses(monkeypatch):
    x, kernel = jnp.zeros((1, 4, 4, 2)), jnp.zeros((3, 3, 1, 2))
    for backend, expected in (("cpu", False), ("gpu", True)):
        monkeypatch.setattr(conv_lib.jax, "default_backend", lambda backend=backend: backend)
        found = "feature_group_count=2" in str(jax.make_jaxpr(lambda x: depthwise(x, kernel))(x))
        assert found == expected
    with pytest.raises(TooSmall, match="3x3"):
        depthwise(x[:, :2], kernel)
    with pytest.raises(ValueError, match="shifts"):
        depthwise(x, kernel, lowering="split")


def test_layers_are_pytorchs():
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 7, 6, 4)).astype(np.float32) * 6
    theirs = torch.tensor(images).permute(0, 3, 1, 2).requires_grad_()
    kernel = rng.normal(size=(3, 3, 1, 4)).astype(np.float32)
    weight = torch.tensor(kernel).permute(3, 2, 0, 1)
    for ours, layer in (
        (relu6, torch.nn.functional.relu6),
        (overlapping_max_pool, lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1)),
        (shuffle, lambda x: torch.nn.functional.channel_shuffle(x, 2)),
        (
            lambda x: depthwise(x, jnp.asarray(kernel), 2, 1),
            lambda x: torch.nn.functional.conv2d(x, weight, None, 2, 1, groups=4),
        ),
    ):
        y, back = jax.vjp(ours, jnp.asarray(images))
        expected = layer(theirs)
        np.testing.assert_allclose(y, expected.detach().permute(0, 2, 3, 1), rtol=1e-4, atol=1e-4)
        (gradient,) = torch.autograd.grad((expected * expected).sum() / 2, theirs)
        np.testing.assert_allclose(back(y)[0], gradient.permute(0, 2, 3, 1), rtol=1e-3, atol=1e-3)


def test_relu6_at_its_ends():
    x = jnp.asarray([-1.0, 0, 3, 6, 7, jnp.nan])
    np.testing.assert_array_equal(relu6(x), [0, 0, 3, 6, 6, jnp.nan])
    np.testing.assert_array_equal(jax.grad(lambda x: relu6(x).sum())(x[:5]), [0, 0, 1, 0, 0])
    assert relu6(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_channels_are_rounded_as_torchvisions():
    """Multiples of 8, 8 at least, and never less than 90 % of what was asked for."""
    assert [rounded(c) for c in (1, 8, 11, 12, 16.8, 24 * 0.75, 33.6)] == [8, 8, 16, 16, 16, 24, 32]
    params = shapes_of(nets.make("MobileNetV2", RGB, 10, width=16))["params"]
    assert params["conv0"]["kernel"].shape == (3, 3, 3, 16)
    assert params["stage2_1"]["conv2"]["kernel"].shape == (3, 3, 1, 48)
    assert params["conv8"]["kernel"].shape == (1, 1, 160, 1280)
    wide = shapes_of(nets.make("MobileNetV2", RGB, 10, width=64))["params"]
    assert wide["conv8"]["kernel"].shape == (1, 1, 640, 2560)


def test_a_depthwise_kernel_starts_as_pytorchs():
    x = jnp.zeros((1, 4, 4, 480))
    shapes = jax.eval_shape(Depthwise().init, jax.random.key(0), x)
    kernel = np.asarray(draw(jax.random.key(1), shapes)["params"]["kernel"])
    assert kernel.shape == (3, 3, 1, 480) and 0.32 < np.abs(kernel).max() <= 1 / 3
    np.testing.assert_allclose(kernel.std(), 1 / 3 / math.sqrt(3), rtol=0.05)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("ShuffleNetV2", {"width": 7}, ("config.net.width", "7", "even")),
        ("ResNet50BN", {"norm": "group"}, ("config.net.norm", "ResNet50BN", "width")),
        ("WRN16_2", {"depth": 22}, ("config.net.depth", "WRN16_2")),
        ("ResNet18BN_I", {}, ("ResNet18BN_I", "did you mean ResNet18BN")),
    ],
)
def test_refusals(name, options, words):
    with pytest.raises(BadInput) as error:
        nets.make(name, RGB, 10, **options)
    assert all(word in str(error.value) for word in words)
