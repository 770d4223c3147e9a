"""FRePo's net against plain NumPy: forward pass, running statistics, sizes, first weights."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets

RGB, GREY = (32, 32, 3), (28, 28, 1)


def shapes_of(net):
    return jax.eval_shape(net.init, jax.random.key(0))


@pytest.mark.parametrize(
    ("shape", "classes", "expected"),
    [
        (RGB, 10, 1_560_842),
        (RGB, 100, 1_560_842 + 8193 * 90),
        (GREY, 10, 1_560_842 - 2 * 9 * 128),  # padding 3: its maps are those of 32 pixels
        # Depth 4: a block of 1024 channels, 16,384 features.
        ((64, 64, 3), 200, 1_560_842 - 81_930 + 512 * 9 * 1024 + 1024 + 16_385 * 200),
    ],
)
def test_parameter_counts(shape, classes, expected):
    params = shapes_of(nets.make("FRePoNet", shape, classes))["params"]
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == expected


def test_batch_norm_adds_no_more_than_its_own():
    shapes = shapes_of(nets.make("FRePoNet", RGB, 10, norm="batch", width=8))
    assert set(shapes["batch_stats"]) == {"norm2", "norm3"}  # before conv 2 and 3, not conv 1
    assert shapes["params"]["norm3"]["scale"].shape == (16,)


def conv(x, kernel, bias, pad):
    n, h, w, _ = x.shape
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    out = np.zeros((n, h + 2 * pad - 2, w + 2 * pad - 2, kernel.shape[-1]))
    for i, j in np.ndindex(3, 3):
        out += x[:, i : i + out.shape[1], j : j + out.shape[2]] @ kernel[i, j]
    return out + bias


def pool(x):
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    return (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4


def by_hand(variables, x, train):
    """Logits, features and what batch norm has seen, in NumPy."""
    params, seen, i = variables["params"], {}, 1
    while f"conv{i}" in params:
        if i > 1 and "batch_stats" in variables:
            stats, norm = variables["batch_stats"][f"norm{i}"], params[f"norm{i}"]
            mean, var = (x.mean((0, 1, 2)), x.var((0, 1, 2)))
            seen[f"norm{i}"] = (mean, var)
            if not train:
                mean, var = stats["mean"], stats["var"]
            x = (x - mean) / np.sqrt(var + 1e-5) * norm["scale"] + norm["bias"]
        layer = params[f"conv{i}"]
        pad = 3 if i == 1 and x.shape[-1] == 1 else 1
        x = pool(np.maximum(conv(x, layer["kernel"], layer["bias"], pad), 0))
        i += 1
    features = x.reshape(len(x), -1)
    return features @ params["head"]["kernel"] + params["head"]["bias"], features, seen


@pytest.mark.parametrize(
    ("shape", "norm", "train"),
    [((8, 8, 3), "none", False), ((10, 9, 1), "batch", False), ((8, 8, 3), "batch", True)],
)
def test_forward_agrees_with_numpy(shape, norm, train):
    net = nets.make("FRePoNet", shape, 4, width=3, depth=2, norm=norm)
    draw = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: draw.uniform(0.2, 1, a.shape), shapes_of(net))
    variables["params"] = jax.tree.map(lambda a: a - 0.6, variables["params"])
    x = draw.normal(size=(5, *shape))
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, variables)
        out = jax.jit(net.apply, static_argnames="train")(given, jnp.asarray(x), train=train)
    logits, features, seen = by_hand(variables, x, train)
    np.testing.assert_allclose(out.logits, logits, atol=1e-10)
    np.testing.assert_allclose(out.features, features, atol=1e-10)
    if train:  # flax's momentum 0.1, the variance not corrected for its count
        for name, (mean, var) in seen.items():
            for stat, value in (("mean", mean), ("var", var)):
                wanted = 0.1 * variables["batch_stats"][name][stat] + 0.9 * value
                np.testing.assert_allclose(out.stats[name][stat], wanted, atol=1e-10)


def test_first_weights_are_lecuns():
    net = nets.make("FRePoNet", RGB, 10, width=32)
    variables = net.init(jax.random.key(1))
    for name, layer in variables["params"].items():
        kernel = np.asarray(layer["kernel"])
        deviation = 1 / math.sqrt(math.prod(kernel.shape[:-1]))
        assert not np.any(layer["bias"]), name
        np.testing.assert_allclose(kernel.std(), deviation, rtol=0.06)
        # Cut at two deviations of the normal it is cut from.
        assert np.abs(kernel).max() <= 2 * deviation / 0.8796 + 1e-6
        assert np.abs(kernel).max() > 1.8 * deviation / 0.8796
    other = nets.make("FRePoNet", RGB, 10, width=32, init="torch").init(jax.random.key(1))
    assert np.any(other["params"]["head"]["bias"])
    assert nets.init_of("FRePoNet") == "lecun" and nets.init_of("ConvNet") == "torch"
