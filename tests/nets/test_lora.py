"""Low-rank adapters: what is trained, what it equals, and its derivatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.errors import BadInput
from jdd.matching.trajectory import trajectory_distance
from jdd.meta import unroll
from jdd.methods.base import student_loss
from jdd.nets.lora import adapted, headed, merged
from jdd.nets.towers import two_towers
from jdd.training import optimisers

DRAW = np.random.default_rng(7)
X = DRAW.normal(size=(3, 8, 8, 1)).astype(np.float32)


def paths(tree):
    found = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(part.key for part in path): leaf.shape for path, leaf in found}


def moved(variables, size=1.0):
    """The variables with every trained value drawn anew, float64."""
    params = jax.tree.map(lambda v: jnp.asarray(size * DRAW.normal(size=v.shape)), variables)
    return jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), params)


def test_the_start_is_the_net_and_only_adapters_and_heads_are_trained():
    plain = two_towers("ConvNet", (8, 8, 1), 6, 5, (("depth", 2), ("norm", "none"), ("width", 4)))
    net, key = adapted(plain, 2, 4.0), jax.random.key(3)
    variables, before = net.init(key), plain.init(key)
    x = {"image": X, "text": np.ones((3, 6), np.float32)}
    np.testing.assert_array_equal(net.apply(variables, x).logits, plain.apply(before, x).logits)
    trained = paths(variables["params"]["image"])
    assert trained == {
        "conv1/lora_a": (9, 2),
        "conv1/lora_b": (2, 4),
        "conv2/lora_a": (36, 2),
        "conv2/lora_b": (2, 4),
        "head/kernel": (36, 5),  # 8x8 with padding 3 is 12x12, pooled twice
        "head/bias": (5,),
    }
    assert paths(variables["params"]["text"]) == paths(before["params"]["text"])
    assert set(variables["frozen"]) == {"image"} and "head" not in variables["frozen"]["image"]


def test_a_frozen_image_tower_trains_its_last_layer_and_the_text_tower():
    plain = two_towers("ConvNet", (8, 8, 1), 6, 5, (("depth", 2), ("norm", "none"), ("width", 4)))
    net, key = headed(plain), jax.random.key(3)
    variables, before = net.init(key), plain.init(key)
    x = {"image": X, "text": np.ones((3, 6), np.float32)}
    np.testing.assert_array_equal(net.apply(variables, x).logits, plain.apply(before, x).logits)
    assert paths(variables["params"]["image"]) == {"head/kernel": (36, 5), "head/bias": (5,)}
    assert paths(variables["params"]["text"]) == paths(before["params"]["text"])
    rest = paths(before["params"]["image"])
    assert paths(variables["frozen"]["image"]) == {
        path: shape for path, shape in rest.items() if not path.startswith("head")
    }
    jax.tree.map(
        np.testing.assert_array_equal, merged(variables, 0, 1.0)["params"], before["params"]
    )
    assert headed(plain) is net


def test_the_rank_is_at_most_that_of_a_matrix():
    net = adapted(nets.make("MLP", (2, 1, 1), 3, width=8), 4, 1.0)
    variables = jax.eval_shape(net.init, jax.random.key(0))
    ranks = {a.shape[1] for path, a in _items(variables["params"]) if path.endswith("lora_a")}
    assert ranks == {2, 4}


def _items(tree):
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield "/".join(part.key for part in path), leaf


def test_a_transformer_adapts_its_attention_alone():
    plain = nets.make("ViT", (8, 8, 1), 5, width=8, depth=2, heads=2)
    shapes = jax.eval_shape(adapted(plain, 4, 4.0).init, jax.random.key(0))
    sizes = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert sizes == 2 * (4 * (8 + 24) + 4 * (8 + 8)) + 8 * 5 + 5
    frozen = sum(leaf.size for leaf in jax.tree.leaves(shapes["frozen"]))
    whole = jax.eval_shape(plain.init, jax.random.key(0))["params"]
    assert frozen + 45 == sum(leaf.size for leaf in jax.tree.leaves(whole))
    chosen = jax.eval_shape(adapted(plain, 4, 4.0, ("mlp/fc1",)).init, jax.random.key(0))
    adapters = {path for path, _ in _items(chosen["params"]) if "lora" in path}
    assert adapters == {f"blocks_{i}/mlp/fc1/lora_{side}" for i in (0, 1) for side in "ab"}


def test_merged_is_a_plain_net_with_the_same_outputs():
    plain = nets.make("ConvNet", (8, 8, 1), 3, width=4, depth=2, norm="batch")
    net = adapted(plain, 2, 6.0)
    with jax.enable_x64(True):
        variables = moved(net.init(jax.random.key(0)))
        whole = merged(variables, 2, 6.0)
        shapes = jax.eval_shape(plain.init, jax.random.key(0))
        assert jax.tree.structure(whole) == jax.tree.structure(shapes)
        layer, base = variables["params"]["conv2"], variables["frozen"]["conv2"]["kernel"]
        by_hand = np.array(base)
        for i in np.ndindex(3, 3, 4):
            row = np.ravel_multi_index(i, (3, 3, 4))
            by_hand[i] += 6 / 2 * (layer["lora_a"][row] @ layer["lora_b"])
        np.testing.assert_allclose(whole["params"]["conv2"]["kernel"], by_hand, rtol=1e-12)
        np.testing.assert_allclose(
            whole["params"]["head"]["bias"], variables["params"]["head"]["bias"]
        )
        x = jnp.asarray(X, jnp.float64)
        found, wanted = net.apply(variables, x, train=True), plain.apply(whole, x, train=True)
        np.testing.assert_array_equal(found.logits, wanted.logits)
        assert jax.tree.structure(found.stats) == jax.tree.structure(variables["batch_stats"])


@pytest.mark.parametrize("how", ["mixed", pytest.param("reverse", marks=pytest.mark.slow)])
def test_meta_gradient_through_adapters_is_that_of_differences(how):
    net = adapted(nets.make("ViT", (4, 4, 1), 3, width=4, depth=1, heads=1), 2, 2.0)
    with jax.enable_x64(True):
        variables = moved(net.init(jax.random.key(0)), 0.5)
        rest = {"frozen": variables["frozen"]}
        start, target = variables["params"], moved(variables["params"], 0.5)
        rows = {"target": jnp.eye(3), "weight": jnp.full(3, 1 / 3)}
        x = jnp.asarray(DRAW.normal(size=(3, 4, 4, 1)))
        directions = [moved(tree) for tree in (x, start)]

        @jax.jit
        def both(t):
            def loss(t):
                images = x + t * directions[0]
                theta = jax.tree.map(lambda v, d: v + t * d, start, directions[1])
                inner = unroll.Inner(
                    student_loss(net), lambda data, fixed: {**rows, "images": data}
                )
                hyper = {"lr": jnp.full(2, 0.3)}
                end = unroll.unroll(
                    inner, optimisers.sgd(), theta, hyper, images, jnp.arange(2), how,
                    constant={"rest": rest},
                )  # fmt: skip
                return trajectory_distance(end, target, start)

            return jax.value_and_grad(loss)(t)

        slope, eps = both(0.0)[1], 1e-6
        numeric = (both(eps)[0] - both(-eps)[0]) / (2 * eps)
        np.testing.assert_allclose(slope, numeric, rtol=1e-6)


def test_what_cannot_be_adapted_is_refused():
    net = nets.make("MLP", (2, 2, 1), 3, width=4)
    with pytest.raises(BadInput, match="rank 0"):
        adapted(net, 0, 1.0)
    with pytest.raises(BadInput, match="'qkv' is no layer of MLP"):
        adapted(net, 2, 1.0, ("qkv",))
