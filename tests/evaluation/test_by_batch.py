"""Tests of nets by the statistics of the test batch."""

from __future__ import annotations

import jax
import numpy as np

from jdd import nets
from jdd.data import Split
from jdd.evaluation import accuracy
from jdd.training.recipe import Recipe


def test_batch_norm_has_the_statistics_of_the_images_it_is_given(monkeypatch):
    monkeypatch.setattr(accuracy, "BATCH", 8)
    draw = np.random.default_rng(0)
    net = nets.make("ConvNetBN", (8, 8, 1), 3, width=4, depth=1)
    variables = net.init(jax.random.key(0))
    sizes = np.arange(1, 13).reshape(-1, 1, 1, 1)
    images = (sizes * draw.standard_normal((12, 8, 8, 1))).astype(np.float32)
    # The last batch, of 4 images, is filled up with themselves: twice each, the same statistics.
    guess = [
        np.argmax(net.apply(variables, part, train=True).logits, axis=1)
        for part in (images[:8], images[8:])
    ]
    labels = np.concatenate(guess).astype(np.int32)
    plain = np.argmax(net.apply(variables, images).logits, axis=1)
    assert (plain != labels).any()
    stacked = jax.tree.map(lambda x: x[None], variables)
    split = Split(images, labels)
    assert accuracy.accuracy(accuracy.by_batch(net), stacked, split)[0] == 1.0
    np.testing.assert_allclose(
        accuracy.accuracy(net, stacked, split)[0], np.mean(plain == labels), atol=1e-7
    )
    assert accuracy.by_batch(net) is accuracy.by_batch(net)  # so that its programs are reused


def test_the_option_is_in_a_recipe_only_where_it_is_used():
    assert "test_norm" not in Recipe(lr=0.1).to_json()
    found = Recipe(lr=0.1, test_norm="batch")
    assert found.to_json()["test_norm"] == "batch"
    assert "statistics of every 200 test images" in found.sentence("schedule")
