"""Nets: sizes, initialisation, agreement with PyTorch, derivatives, what make() refuses."""

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

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))
import net_cases  # noqa: E402

# LLVM compiles a net in half the time without optimising it; it runs once.
QUICK = {"xla_backend_optimization_level": 0}
RGB, GREY = (32, 32, 3), (28, 28, 1)


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
    ("name", "shape", "classes", "options", "expected"),
    [
        ("ConvNet", RGB, 10, {}, 320_010),
        ("ConvNetBN", RGB, 10, {}, 320_010),
        ("ConvNet", RGB, 100, {}, 504_420),
        ("ConvNet", GREY, 10, {}, 317_706),
        ("ConvNet", (64, 64, 3), 200, {}, 857_160),
        ("ConvNet", (64, 64, 3), 200, {"depth": 3}, 1_938_120),
        ("ConvNet", (64, 64, 3), 1000, {}, 2_496_360),
        ("MLP", RGB, 10, {}, 411_146),
        ("LeNet", RGB, 10, {}, 62_006),
        ("AlexNet", RGB, 10, {}, 1_872_202),
        ("VGG11", RGB, 10, {}, 9_231_114),
        ("VGG11BN", RGB, 10, {}, 9_231_114),
        ("ResNet18", RGB, 10, {}, 11_173_962),
        ("ResNet18BN", RGB, 10, {}, 11_173_962),
        # The flattened last map: 512 * 4 * 4 (3 * 3 from 28 pixels) inputs to the classifier.
        ("ResNet18_AP", RGB, 10, {}, 11_173_962 + 512 * 15 * 10),
        ("ResNet18BN_AP", GREY, 10, {}, 11_173_962 - 2 * 9 * 64 + 512 * 8 * 10),
    ],
)
def test_parameter_counts(name, shape, classes, options, expected):
    assert count(name, shape, classes, **options) == expected


@pytest.mark.parametrize(
    ("shape", "depth"),
    [(RGB, 3), (GREY, 3), ((8, 8, 1), 3), ((33, 20, 3), 4), ((64, 64, 3), 4), ((128, 128, 3), 5)]
    + [((8, 8, 3), 3), ((4, 4, 3), 2)],
)
def test_auto_depth(shape, depth):
    assert nets.auto_depth(shape) == depth
    convs = [k for k in shapes_of(nets.make("ConvNet", shape, 2))["params"] if "conv" in k]
    assert len(convs) == depth


@pytest.mark.parametrize("name", ["ConvNetBN", "LeNet", "ResNet18"])
def test_initialisation_is_pytorchs(name):
    net = nets.make(name, (32, 32, 3), 10, **({} if name == "LeNet" else {"width": 16}))
    variables = net.init(jax.random.key(3))
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        names = [part.key for part in path]
        values, kind = np.asarray(leaf), names[-1]
        assert values.dtype == np.float32
        layer = at(variables, "/".join(names[:-1]))
        if "kernel" in layer:
            bound = 1 / math.sqrt(math.prod(layer["kernel"].shape[:-1]))
            assert np.abs(values).max() <= bound
            if values.size > 400:
                np.testing.assert_allclose(values.std(), bound / math.sqrt(3), rtol=0.1)
                assert abs(values.mean()) < bound / 8
            if kind == "bias":
                assert np.abs(values).max() > 0.3 * bound  # not flax's zeros
        else:
            assert np.all(values == (1 if kind in ("scale", "var") else 0))
    again = net.init(jax.random.key(3))
    assert all(map(np.array_equal, jax.tree.leaves(variables), jax.tree.leaves(again)))


@pytest.mark.parametrize("case", net_cases.NET_CASES)
def test_agrees_with_pytorch(case):
    name, shape, options = net_cases.NET_CASES[case]
    net = nets.make(name, shape, net_cases.CLASSES, **options)
    variables = jax.tree.map(
        lambda v: jnp.asarray(v, jnp.float32), net_cases.variables(shapes_of(net))
    )
    images = jnp.asarray(net_cases.images(case, shape), jnp.float32)
    with np.load(GOLDEN / "nets.npz") as golden:
        for train in net_cases.modes(case):
            tag = f"{case}/train" if train else case
            _check_golden(golden, tag, net, variables, images, train)


def _check_golden(golden, tag, net, variables, images, train):
    with_gradients = f"{tag}/grad_image" in golden.files

    @partial(jax.jit, compiler_options=QUICK)
    def run(params, x):
        def loss(params, x):
            out = net.apply({**variables, "params": params}, x, train=train)
            return -jnp.diagonal(jax.nn.log_softmax(out.logits)).mean(), out

        if not with_gradients:
            return loss(params, x)[1], None, None
        (_, out), grads = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
        return out, *grads

    out, d_params, d_images = run(variables["params"], images)
    assert out.features.shape[0] == len(images) and out.features.ndim == 2
    _close(out.logits, golden[f"{tag}/logits"])
    if with_gradients:
        _close(d_images[0, :8, :8], golden[f"{tag}/grad_image"])
    for key in golden.files:
        if key.startswith(f"{tag}/grad_kernel/"):
            grad = at(d_params, key.removeprefix(f"{tag}/grad_kernel/"))
            _close(grad.reshape(-1, grad.shape[-1])[:25, :8], golden[key])
        if key.startswith(f"{tag}/stats/"):
            _close(at(out.stats, key.removeprefix(f"{tag}/stats/")), golden[key])
    if not train:
        jax.tree.map(np.testing.assert_array_equal, out.stats, variables.get("batch_stats", {}))


def _close(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=1e-4 * scale)


TINY = [
    ("ConvNet", (8, 8, 1), {"width": 4, "depth": 2, "pool": "max"}),
    ("ConvNetBN", (5, 6, 2), {"width": 4, "depth": 1, "act": "swish"}),
]


@pytest.mark.parametrize(("name", "shape", "options"), TINY)
def test_second_order_in_float64(name, shape, options):
    """Forward over reverse equals reverse over reverse, and a finite difference of the gradient."""
    net = nets.make(name, shape, 3, **options)
    raw, images = net_cases.variables(shapes_of(net)), net_cases.images(name, shape, 2)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), raw)
        x = jnp.asarray(images, jnp.float64)
        rest = {k: v for k, v in variables.items() if k != "params"}
        point = (variables["params"], x)
        rng = np.random.default_rng(0)
        along = jax.tree.map(lambda v: jnp.asarray(rng.normal(size=v.shape)), point)

        def loss(params, x):
            logits = net.apply({**rest, "params": params}, x, train=True).logits
            return -jax.nn.log_softmax(logits)[:, 0].mean()

        grad = jax.jit(jax.grad(loss, (0, 1)))

        def dot(a, b):
            return sum(jax.tree.leaves(jax.tree.map(lambda u, v: (u * v).sum(), a, b)))

        def both(point, along):
            forward = jax.jvp(lambda p: grad(*p), (point,), (along,))[1]
            return forward, jax.grad(lambda p: dot(grad(*p), along))(point)

        forward, reverse = jax.jit(both, compiler_options=QUICK)(point, along)
        eps = 1e-6
        up, down = (
            grad(*jax.tree.map(lambda p, v, s=s: p + s * eps * v, point, along)) for s in (1, -1)
        )
        for f, r, u, d in zip(*map(jax.tree.leaves, (forward, reverse, up, down)), strict=True):
            assert f.dtype == jnp.float64
            size = max(1e-3, float(jnp.abs(f).max()))
            np.testing.assert_allclose(f, r, rtol=0, atol=1e-10 * size)
            np.testing.assert_allclose(f, (u - d) / (2 * eps), rtol=0, atol=1e-5 * size)


def test_vmap_over_weights_is_each_net_alone():
    net = nets.make("ConvNetBN", (8, 8, 3), 3, width=4, depth=2)
    keys = jax.random.split(jax.random.key(0), 3)
    x = jnp.asarray(net_cases.images("vmap", (8, 8, 3)), jnp.float32)
    many = jax.vmap(net.init)(keys)
    train = partial(net.apply, train=True)
    outs, single = jax.jit(jax.vmap(train, (0, None)))(many, x), jax.jit(train)
    for i, key in enumerate(keys):
        one = net.init(key)
        alone = single(one, x)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), many, one)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5), outs, alone)


def test_runs_inside_a_scan_and_carries_statistics():
    net = nets.make("ConvNetBN", (8, 8, 3), 3, width=4, depth=2)
    x = jnp.asarray(net_cases.images("scan", (8, 8, 3)), jnp.float32)

    def step(variables, _):
        def loss(params):
            out = net.apply({**variables, "params": params}, x, train=True)
            return -jax.nn.log_softmax(out.logits)[:, 0].mean(), out.stats

        grads, stats = jax.grad(loss, has_aux=True)(variables["params"])
        params = jax.tree.map(lambda p, g: p - 0.1 * g, variables["params"], grads)
        return {"params": params, "batch_stats": stats}, loss(params)[0]

    variables, losses = jax.jit(lambda v: jax.lax.scan(step, v, None, length=5))(
        net.init(jax.random.key(0))
    )
    assert losses[-1] < losses[0]
    assert float(jnp.abs(variables["batch_stats"]["norm1"]["mean"]).max()) > 0
    # Evaluation reads the running statistics: an image's logits do not depend on its batch.
    logits = jax.jit(lambda x: net.apply(variables, x).logits)
    np.testing.assert_allclose(logits(x)[:1], logits(x[:1].repeat(3, 0))[:1], atol=1e-5)


def test_taps_are_named_as_the_norms_are():
    net = nets.make("ResNet18BN", (8, 8, 3), 3, width=2)
    shapes, x = shapes_of(net), jnp.zeros((3, 8, 8, 3))
    taps = jax.eval_shape(lambda v: net.apply(v, x, taps=True), shapes).taps
    norms = {
        jax.tree_util.keystr(path[:-1], simple=True, separator="/")
        for path, _ in jax.tree_util.tree_leaves_with_path(shapes["batch_stats"])
    }
    assert norms | {f"block{i}" for i in range(1, 9)} == set(taps)
    assert taps["stage2_1/norm3"].shape == (3, 4, 4, 4)
    assert jax.eval_shape(net.apply, shapes, x).taps == {}


def test_a_norms_tap_is_what_its_statistics_are_made_of():
    net = nets.make("ConvNetBN", (8, 8, 3), 3, width=2, depth=1)
    variables = net.init(jax.random.key(0))
    x = jnp.asarray(net_cases.images("taps", (8, 8, 3)), jnp.float32)
    out = jax.jit(partial(net.apply, train=True, taps=True))(variables, x)
    tapped = out.taps["norm1"].mean((0, 1, 2))
    np.testing.assert_allclose(out.stats["norm1"]["mean"], 0.1 * tapped, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "options", "words"),
    [
        ("VGG12", RGB, {}, ("config.net.name", "VGG12", "did you mean VGG11?")),
        ("LeNet", (8, 8, 1), {}, ("LeNet", "8x8", "larger images")),
        ("VGG11", (8, 8, 3), {}, ("VGG11", "8x8")),
        ("VGG11BN", (16, 16, 3), {}, ("VGG11BN", "16x16", "pooled")),
        ("ResNet18", (8, 8, 3), {}, ("ResNet18", "8x8", "1x1")),
        ("ConvNet", RGB, {"depth": 7}, ("ConvNet", "32x32")),
        ("ConvNet", RGB, {"width": 0}, ("config.net.width", "0")),
        ("ConvNet", RGB, {"width": True}, ("config.net.width", "True")),
        ("ConvNet", RGB, {"depth": "deep"}, ("config.net.depth", "deep")),
        ("ConvNet", RGB, {"norm": "batchnorm"}, ("config.net.norm", "batchnorm", "instance")),
        ("ConvNet", RGB, {"norm": "group", "width": 6}, ("config.net.width", "6", "4 groups")),
        ("ConvNet", RGB, {"act": "gelu"}, ("config.net.act", "gelu", "relu")),
        ("ConvNetBN", RGB, {"norm": "layer"}, ("config.net.norm", "ConvNetBN")),
        ("MLP", RGB, {"pool": "avg"}, ("config.net.pool", "MLP")),
    ],
)
def test_refusals(name, shape, options, words):
    with pytest.raises(BadInput) as error:
        nets.make(name, shape, 10, **options)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)
