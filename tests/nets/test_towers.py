"""Two towers against their formula."""

from __future__ import annotations

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as configs
from jdd import nets, rng
from jdd.errors import BadInput
from jdd.nets.towers import two_towers

DRAW = np.random.default_rng(1)
X = DRAW.normal(size=(3, 8, 8, 1)).astype(np.float32)
E = DRAW.normal(size=(4, 6)).astype(np.float32)


def erf(x):
    return np.vectorize(math.erf)(x)


def test_logits_are_cosines_over_tau():
    net = two_towers("MLP", (8, 8, 1), 6, 5, (("width", 8),), 0.07)
    variables = net.init(rng.key(0, "towers"))
    out = net.apply(variables, {"image": X, "text": E})
    f = nets.make("MLP", (8, 8, 1), 5, width=8)
    u = np.asarray(f.apply({"params": variables["params"]["image"]}, X).logits)
    head = jax.tree.map(np.asarray, variables["params"]["text"])
    p = E @ head["in"]["kernel"] + head["in"]["bias"]
    x = p + 0.5 * p * (1 + erf(p / math.sqrt(2))) @ head["out"]["kernel"] + head["out"]["bias"]
    v = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
    v = v * head["scale"] + head["bias"]
    u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (u, v))
    np.testing.assert_allclose(out.logits, u @ v.T / 0.07, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(out.embeddings["text"], v, rtol=1e-4, atol=1e-5)
    alone = net.apply(variables, {"text": E})
    np.testing.assert_array_equal(alone.embeddings["text"], out.embeddings["text"])


def test_pairs_are_blended_before_both_projections():
    net = two_towers("MLP", (8, 8, 1), 6, 5, (("width", 8),))
    variables = net.init(rng.key(0, "towers"))
    order, weight = np.array([2, 0, 1]), np.float32(0.3)
    mix = {"order": jnp.asarray(order), "weight": jnp.asarray(weight)}
    found = net.apply(variables, {"image": X, "text": E[:3], "mix": mix}).embeddings
    image = variables["params"]["image"]
    f = nets.make("MLP", (8, 8, 1), 5, width=8)
    z = np.asarray(f.apply({"params": image}, X).features)
    z = weight * z + (1 - weight) * z[order]
    u = z @ np.asarray(image["head"]["kernel"]) + np.asarray(image["head"]["bias"])
    u = u / np.linalg.norm(u, axis=1, keepdims=True)
    np.testing.assert_allclose(found["image"], u, rtol=1e-4, atol=1e-5)
    e = weight * E[:3] + (1 - weight) * E[order]
    wanted = net.apply(variables, {"text": e}).embeddings["text"]
    np.testing.assert_allclose(found["text"], wanted, rtol=1e-5, atol=1e-6)


def test_batch_norm_of_the_image_tower_is_carried():
    net = two_towers("ConvNetBN", (8, 8, 1), 6, 5, (("depth", 2), ("width", 4)))
    variables = net.init(rng.key(0, "towers"))
    out = net.apply(variables, {"image": X, "text": E[:3]}, train=True)
    before, after = variables["batch_stats"], out.stats
    assert jax.tree.structure(before) == jax.tree.structure(after)
    moved = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    ]
    assert max(moved) > 1e-3


def test_one_tower_object_a_kind():
    made = [two_towers("MLP", (8, 8, 1), 6, 5, (("width", 8),)) for _ in range(2)]
    assert made[0] is made[1]


def test_shapes_types_and_one_trace_for_every_batch_of_a_size():
    net = two_towers("MLP", (8, 8, 1), 6, 5, (("width", 8),))
    variables = net.init(rng.key(0, "towers"))
    chex.assert_tree_all_finite(variables)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(n=1)
    def logits(variables, image, text):
        return net.apply(variables, {"image": image, "text": text}).logits

    for scale in (1.0, 2.0, 3.0):
        out = logits(variables, scale * X, scale * E)
        chex.assert_shape(out, (3, 4))
        chex.assert_type(out, jnp.float32)


def test_text_towers_by_name():
    made = {}
    for name in ("linear", "mlp"):
        net = two_towers(f"MLP+{name}", (8, 8, 1), 6, 5, (("width", 8),))
        assert net.name == f"MLP+{name}"
        variables = net.init(rng.key(0, "towers"))
        head = jax.tree.map(np.asarray, variables["params"]["text"])
        x = E
        if name == "mlp":
            p = x @ head["in"]["kernel"] + head["in"]["bias"]
            x = 0.5 * p * (1 + erf(p / math.sqrt(2)))
        v = x @ head["out"]["kernel"] + head["out"]["bias"]
        made[name] = net.apply(variables, {"text": E}).embeddings["text"]
        wanted = v / np.linalg.norm(v, axis=1, keepdims=True)
        np.testing.assert_allclose(made[name], wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(BadInput, match="unknown text tower 'deep'; one of residual, linear, mlp"):
        two_towers("MLP+deep", (8, 8, 1), 6, 5)


@pytest.mark.parametrize(
    ("spec", "keys", "words"),
    [
        ("random_pairs:digits_captions", {"nets": "MLP+linar"}, "did you mean linear.*residual"),
        ("random_pairs:digits_captions", {"nets": "MPL+linear"}, "unknown net 'MPL.linear'"),
        ("random_pairs:digits_captions", {"net.name": "MLP+mlp"}, "config.net.name.*text tower"),
        ("random:digits", {"nets": "MLP+linear"}, "config.nets: 'MLP.linear', with a text tower"),
    ],
)
def test_names_of_towers_are_validated(spec, keys, words):
    with pytest.raises(BadInput, match=words):
        configs.resolve(configs.load(spec, keys).config)


def test_the_default_text_tower_has_no_name_of_its_own():
    loaded = configs.load("random_pairs:digits_captions", {"nets": "MLP+residual,MLP+linear"})
    assert configs.resolve(loaded.config)[0].nets == ("MLP", "MLP+linear")
