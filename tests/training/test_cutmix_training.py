"""``eval.cutmix``: from the key to the recipe, the words and code of the report, and the batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, nets
from jdd.augment import cutmix
from jdd.errors import BadInput
from jdd.training import orders, trainer
from jdd.training.recipe import Recipe, eval_keys, with_eval_keys


def test_a_step_shows_its_batch_mixed():
    net = nets.make("MLP1", (4, 4, 1), 3)
    images, labels = jax.random.normal(jax.random.key(0), (6, 4, 4, 1)), jnp.arange(6) % 3
    keys = orders.Keys(jax.random.key(1), jax.random.key(2))
    training = trainer._Training(net, Recipe(classes=3, cutmix=1.0), 6, False, ())
    shown, target = training._shown(keys, images, labels, jnp.int32(4))
    key = jax.random.fold_in(jax.random.fold_in(keys.own, 3), 4)
    x, y = cutmix.mixed(key, images, jax.nn.one_hot(labels, 3), 1.0)
    np.testing.assert_array_equal(shown, x)
    np.testing.assert_array_equal(target, y)
    assert bool(jnp.any(shown != images))
    plain = trainer._Training(net, Recipe(classes=3), 6, False, ())
    np.testing.assert_array_equal(plain._shown(keys, images, labels, jnp.int32(4))[0], images)


def test_the_key_is_an_entry_of_the_recipe_where_it_is_given():
    train = Recipe(lr=0.01).to_json()
    assert "cutmix" not in train and "factor" not in train
    assert with_eval_keys(train, {"cutmix": 0.0}) == train
    mixed = with_eval_keys(train, {"cutmix": 0.5})
    assert mixed["cutmix"] == 0.5 and eval_keys(mixed)["eval.cutmix"] == 0.5
    assert "CutMix with chance 0.5" in Recipe.from_json(mixed).sentence("loss")
    formed = Recipe.from_json(train | {"factor": 2})
    assert "2 × 2 tiles" in formed.sentence("schedule") and len(formed.code("set")) == 4
    assert formed.to_json()["factor"] == 2


@pytest.mark.parametrize("method", ["sre2l", "lors"])
def test_stored_views_and_pairs_have_no_cutmix(method):
    name = "digits" if method == "sre2l" else "digits_captions"
    keys = {"method": method, "data.name": name, "eval.cutmix": 0.5}
    with pytest.raises(BadInput, match="config.eval.cutmix: 0.5; 0"):
        config.resolve(config.load("mtt", keys).config)
