"""Pairs by an index of images train as those whose pixels are repeated, to the bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.nets.towers import two_towers
from jdd.training import trainer
from jdd.training.recipe import Recipe

OF = np.array([0, 0, 2, 1, 2, 2, 1], np.int32)


def trained(batch, inputs):
    net = two_towers("MLP", (4, 4, 1), 6, 5, (("width", 8),))
    run = trainer.make(net, Recipe(loss="nce", batch=batch), len(OF))
    none = jnp.zeros((len(OF), 0))
    labels = {"w": jnp.linspace(0.5, 1, len(OF)), "left": none, "right": none}
    own, ops = jax.random.split(jax.random.key(1))
    call = jax.jit(lambda *given: run.advance(run.init(own), trainer.Keys(own, ops), *given))
    return call(jax.tree.map(jnp.asarray, inputs), labels, 0.1, 0, 5)


@pytest.mark.parametrize("batch", [3, 7], ids=["with a short last batch", "all in one batch"])
def test_an_index_of_images_trains_as_copies_do(batch):
    draw = np.random.default_rng(3)
    images = draw.normal(size=(3, 4, 4, 1)).astype(np.float32)
    text = draw.normal(size=(len(OF), 6)).astype(np.float32)
    copied = trained(batch, {"image": images[OF], "text": text})
    indexed = trained(batch, {"image": images, "text": text, "of": OF})
    jax.tree.map(np.testing.assert_array_equal, copied, indexed)
    other = trained(batch, {"image": images, "text": text, "of": OF[::-1]})
    assert not np.array_equal(copied[1], other[1])
