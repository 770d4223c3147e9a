"""Pairs by an index of images train as those whose pixels are repeated, to the bit."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.matching import contrastive
from jdd.nets.towers import two_towers
from jdd.training import orders, trainer
from jdd.training.recipe import Recipe

OF = np.array([0, 0, 2, 1, 2, 2, 1], np.int32)


def trained(batch, inputs):
    net = two_towers("MLP", (4, 4, 1), 6, 5, (("width", 8),))
    run = trainer.make(net, Recipe(loss="nce", batch=batch), len(OF))
    none = jnp.zeros((len(OF), 0))
    labels = {"w": jnp.linspace(0.5, 1, len(OF)), "left": none, "right": none}
    own, ops = jax.random.split(jax.random.key(1))
    call = jax.jit(lambda *given: run.advance(run.init(own), orders.Keys(own, ops), *given))
    return call(jax.tree.map(jnp.asarray, inputs), labels, 0.1, 0, 5)


@pytest.mark.parametrize("batch", [3, 7], ids=["with a short last batch", "all in one batch"])
def test_an_index_of_images_trains_as_copies_do(batch):
    draw = np.random.default_rng(3)
    images = draw.normal(size=(3, 4, 4, 1)).astype(np.float32)
    text = draw.normal(size=(len(OF), 6)).astype(np.float32)
    copied = trained(batch, {"image": images[OF], "text": text})
    indexed = trained(batch, {"image": images, "text": text, "of": OF})
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, copied, indexed)  # two programs
    other = trained(batch, {"image": images, "text": text, "of": OF[::-1]})
    assert not np.array_equal(copied[1], other[1])


def test_batches_drawn_anew_are_independent_and_have_their_block_of_the_similarity():
    """Plain SGD by hand on rows [b] without replacement, drawn by the step alone."""
    draw, n, b, lr = np.random.default_rng(4), len(OF), 3, 0.1
    net = two_towers("MLP", (4, 4, 1), 6, 5, (("width", 8),), tau=1.0)  # keeps rounding small
    recipe = Recipe(loss="wbce", batch=b, order="drawn", momentum=0.0, weight_decay=0.0)
    run = trainer.make(net, recipe, n)
    assert run.steps_per_epoch == 3
    inputs = {"image": draw.normal(size=(n, 4, 4, 1)), "text": draw.normal(size=(n, 6))}
    labels = {"w": np.ones(n), "left": draw.normal(size=(n, 2)), "right": draw.normal(size=(n, 2))}
    inputs, labels = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (inputs, labels))
    keys = orders.Keys(*jax.random.split(jax.random.key(1)))
    found, _ = run.advance(run.init(keys.own), keys, inputs, labels, lr, 0, 5)

    whole = jnp.diag(labels["w"]) + labels["left"] @ labels["right"].T
    params, seen = net.init(keys.own)["params"], []
    for step in range(5):
        rows = np.asarray(orders.shuffle(keys, step, n))[:b]
        assert len(set(rows.tolist())) == b
        seen.append(tuple(rows.tolist()))

        def loss(params, rows=rows):
            given = {name: a[rows] for name, a in inputs.items()}
            out = net.apply({"params": params}, given, train=True)
            return contrastive.weighted_bce(out.logits, whole[np.ix_(rows, rows)])

        params = jax.tree.map(lambda p, g: p - lr * g, params, jax.grad(loss)(params))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-6),
        found["variables"]["params"], params,
    )  # fmt: skip
    assert len(set(seen[0]) | set(seen[1]) | set(seen[2])) < 9  # no epoch is a permutation
