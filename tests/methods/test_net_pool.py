"""The net in use as one vector, its SGD against NumPy, and words for nets."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.errors import BadInput
from jdd.methods.net_pool import NetPool
from jdd.nets import words

SHAPE = (8, 8, 1)


def test_a_net_is_held_whole_and_started_anew_when_asked():
    members = [nets.make("MLP1", SHAPE, 3, width=2), nets.make("MLP", SHAPE, 3, width=2)]
    pool = NetPool(members, 0.1, 0.9, 0.0)
    keys = jax.random.split(jax.random.key(0))

    @jax.jit
    def use(which, vector, fresh, key):
        return pool.use(which, vector, fresh, key, lambda net, held: (held, net.apply(
            held["variables"], jnp.ones((1, *SHAPE))).logits))  # fmt: skip

    blank = jnp.zeros(pool.size)
    for i, net in enumerate(members):
        vector, logits = use(i, blank, True, keys[0])
        wanted = net.apply(net.init(keys[0]), jnp.ones((1, *SHAPE))).logits
        np.testing.assert_allclose(logits, wanted, rtol=1e-6)
        again, same = use(i, vector, False, keys[1])
        np.testing.assert_array_equal(again, vector)
        np.testing.assert_array_equal(same, logits)
    assert use._cache_size() == 1


def test_training_is_sgd_with_momentum_and_decay():
    net = nets.make("MLP1", SHAPE, 3, width=2)
    pool = NetPool([net], 0.1, 0.9, 0.01)
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.standard_normal((3, 4, *SHAPE)), jnp.float32)
    labels = jnp.asarray(draw.integers(0, 3, (3, 4)))
    held = pool._fresh(net, jax.random.key(0))
    found = pool.trained(net, held, images, labels, lambda key, x: 2 * x, jax.random.key(1))

    def loss(params, x, y):
        logs = jax.nn.log_softmax(net.apply({"params": params}, 2 * x).logits)
        return -logs[jnp.arange(4), y].mean()

    w = held["variables"]["params"]
    v = jax.tree.map(jnp.zeros_like, w)
    for x, y in zip(images, labels, strict=True):
        g = jax.grad(loss)(w, x, y)
        v = jax.tree.map(lambda v, g, w: 0.9 * v + g + 0.01 * w, v, g, w)
        w = jax.tree.map(lambda w, v: w - 0.1 * v, w, v)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)  # noqa: E731
    jax.tree.map(close, found["variables"]["params"], w)


def test_words_name_nets_and_widths():
    assert words.make("MLP1:5", SHAPE, 3, "x").name == "MLP1"
    shapes = [
        sum(a.size for a in jax.tree.leaves(jax.eval_shape(
            words.make(word, (32, 32, 3), 10, "x").init, jax.random.key(0))["params"]))
        for word in ("ResNet10BN:32", "ResNet18BN:32", "ResNet10BN_AP:32")
    ]  # fmt: skip
    assert shapes[0] < shapes[1] and shapes[0] < shapes[2]
    for word, message in [
        ("MLP:x", "NET or NET:WIDTH"), ("MLP:0", "NET or NET:WIDTH"), ("MPL", "unknown net 'MPL'"),
        ("LeNet:4", "it has no width"),
    ]:  # fmt: skip
        with pytest.raises(BadInput, match=message):
            words.make(word, (32, 32, 3), 10, "config.match.nets")
