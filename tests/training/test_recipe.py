"""The training recipe: its JSON, its keys, and the options that are shown by it."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config, nets
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.product import distilled_set
from jdd.stages import costs
from jdd.training import option, orders, recipe, schedules, trainer
from jdd.training.recipe import Recipe
from tests import runs
from tests.tiny_distilled import make

PINNED = Path(__file__).parents[1] / "pins" / "pins.json"
CLASSES, N, SHAPE = 3, 12, (6, 6, 1)


def pinned():
    """The recipes of all pinned runs, as their sets hold them."""

    def found(tree):
        if isinstance(tree, dict):
            if isinstance(tree.get("train"), dict) and "optimizer" in tree["train"]:
                yield tree["train"]
            for value in tree.values():
                yield from found(value)
        elif isinstance(tree, list):
            for value in tree:
                yield from found(value)

    return list(found(json.loads(PINNED.read_text())))


def test_the_recipes_of_all_methods_are_read_and_written_byte_for_byte():
    kinds = pinned()
    assert len(kinds) >= 17
    assert {train["order"] for train in kinds} >= {"shuffled", "sequential", "stored"}
    for train in kinds:
        own = {k: v for k, v in train.items() if k != "init"}
        if not isinstance(own["lr"], list | float | int | None):  # pinned apart, as any rate
            own["lr"] = 0.5
        made = Recipe.from_json(own)
        assert json.dumps(made.to_json(), sort_keys=True) == json.dumps(own, sort_keys=True)
        assert hash(made.static) == hash(Recipe.from_json(own).static)


def test_defaults_are_those_of_sets_of_schema_1_and_newer_entries_are_named_where_used():
    train = distilled_set.RECIPE["train"]
    assert train == {
        "optimizer": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "batch": 256,
        "epochs": 1000, "passes": 1001, "steps": None, "schedule": None, "loss": "cross_entropy",
        "drop": {"after_epoch": 501, "factor": 0.1, "reset_momentum": True}, "temperature": 1.0,
        "ce_weight": 0.0, "decay": "all", "order": "shuffled", "per_class": 0,
        "classes_per_step": 0, "init": {"kind": "fresh"},
    }  # fmt: skip
    assert Recipe.from_json({}) == Recipe()
    new = Recipe(ema=0.99, parts=2, schedule=schedules.Multistep((0.8, 900.0), 0.5))
    said = new.to_json()
    assert said["ema"] == 0.99 and said["parts"] == 2
    assert said["schedule"] == {"kind": "multistep", "milestones": [0.8, 900.0], "gamma": 0.5}
    assert Recipe.from_json(json.loads(json.dumps(said))) == new


def test_what_is_traced_keys_no_program():
    one = Recipe(lr=0.1, steps=7, schedule=schedules.Cosine())
    assert one != Recipe() and one.static == Recipe() == Recipe(lr=(0.1, 0.2)).static
    assert Recipe(ema=0.5).static != Recipe()


def test_every_key_of_an_option_is_a_key_of_a_config():
    keys = config.schema("sre2l") | config.schema("mtt")
    classes = (Recipe, *schedules.KINDS.values())
    for one in (one for cls in classes for one in option.options(cls)):
        for name in one.keys:
            assert name in keys, name
            if one.rule:
                assert keys[name].type == one.rule.type, name
    training = {k for k, key in config.COMMON.items() if key.sparse and k.startswith("eval.")}
    own = {
        "eval.schedule",
        "eval.optimizer",
        "eval.protocol",
        "eval.ema",
        "eval.cutmix",
        "eval.milestones",
        "eval.gamma",
        "eval.test_norm",
    }
    assert training == own


def test_keys_are_in_config_json_only_where_they_are_set():
    plain = config.load("mtt:digits").config
    assert not {k for k, key in config.COMMON.items() if key.sparse} & set(
        config.flat(json.loads(config.to_json(plain)))
    )
    given = {"eval.ema": 0.9, "eval.schedule": "multistep", "eval.milestones": "0.5,30"}
    made = config.load("mtt:digits", given).config
    said = config.flat(json.loads(config.to_json(made)))
    assert said["eval.milestones"] == [0.5, 30.0] and "eval.gamma" not in said
    assert config.from_json(config.to_json(made)) == made


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"eval.ema": 1}, "config.eval.ema: 1; .*below 1"),
        ({"eval.ema": -0.1}, "config.eval.ema: -0.1; "),
        ({"eval.gamma": 0.5}, "config.eval.gamma: 0.5 with eval.schedule=recipe; .*multistep"),
        ({"eval.schedule": "multistep", "eval.milestones": "0,2"}, "numbers above 0"),
        ({"eval.schedule": "cosine"}, "one of recipe, multistep"),
        ({"eval.optimizer": "muon"}, "config.eval.optimizer: muon, .*--config.eval.lr=0.001"),
        ({"eval.optimizer": "lion"}, "one of recipe, sgd, adam, adamw, muon"),
    ],
)
def test_keys_that_do_not_fit_are_refused(given, words):
    with pytest.raises(BadInput, match=words):
        config.resolve(config.load("mtt:digits", given).config)


def test_learned_rates_refuse_a_schedule_before_the_data_are_read():
    given = {"eval.schedule": "multistep"}
    with pytest.raises(BadInput, match="config.eval.schedule: .*--config.eval.lr=0.01"):
        config.resolve(config.load("dd:digits", given).config)
    config.resolve(config.load("dd:digits", given | {"eval.lr": 0.01}).config)


def test_an_optimiser_of_students_has_one_key_a_method():
    given = {"eval.optimizer": "muon", "eval.lr": 0.001}
    config.resolve(config.load("mtt:digits", given).config)
    with pytest.raises(BadInput, match="config.eval.optimizer: muon; .*post.optimizer=muon"):
        config.resolve(config.load("sre2l:digits", given).config)
    train = distilled_set.RECIPE["train"]
    assert recipe.with_eval_keys(train, {"optimizer": "muon"})["optimizer"] == "muon"
    assert recipe.with_eval_keys(train, {"optimizer": "recipe"}) == train


def test_the_keys_reach_the_recipe_of_a_set():
    group = {"ema": 0.9, "schedule": "multistep", "milestones": (0.5,), "gamma": 0.2}
    train = distilled_set.RECIPE["train"]
    found = recipe.with_eval_keys(train, group)
    assert found["ema"] == 0.9 and found["drop"] is None and train["drop"]
    assert found["schedule"] == {"kind": "multistep", "milestones": [0.5], "gamma": 0.2}
    sparse = {name: key.default for name, key in config.COMMON.items() if key.sparse}
    defaults = {k.removeprefix("eval."): v for k, v in sparse.items() if k.startswith("eval.")}
    assert recipe.with_eval_keys(train, defaults) == train
    assert recipe.with_eval_keys(found, {"gamma": 0.4})["schedule"]["gamma"] == 0.4
    assert recipe.with_eval_keys(found, {"ema": 0.0})["ema"] == 0.0
    assert recipe.eval_keys(train) == {}
    assert recipe.eval_keys(found) == {
        "eval.ema": 0.9, "eval.schedule": "multistep", "eval.milestones": [0.5], "eval.gamma": 0.2,
    }  # fmt: skip


def test_a_set_that_asks_for_what_cannot_be_is_refused():
    for train, words in (
        ({"ema": 1.0}, "recipe.train.ema is 1.0"),
        ({"schedule": {"kind": "multistep", "gamma": 0.1}}, "has no milestones"),
        ({"schedule": {"kind": "multistep", "gamma": 0.1, "milestones": []}}, "above 0"),
        ({"schedule": {"kind": "multistep", "gamma": -1, "milestones": [2]}}, "gamma is -1"),
    ):
        dset = make()
        said = distilled_set.merge(dset.recipe, {"train": train})
        with pytest.raises(BadInput, match=words):
            train_eval.plan(dset._replace(recipe=said))


def test_multistep_against_its_formula():
    for steps, per_epoch in ((1000, 1), (50, 5), (47, 5)):
        made = schedules.Multistep((0.75, 0.2, 4.0), 0.5)
        found = np.asarray(made.rates(0.3, steps, per_epoch))
        epochs = -(-steps // per_epoch)
        at = [np.rint(0.75 * epochs), np.rint(0.2 * epochs), 4]
        for step in range(steps):
            passed = sum(step // per_epoch >= m for m in at)
            assert found[step] == pytest.approx(0.3 * 0.5**passed, rel=1e-12)
        scope: dict = {}
        exec("\n".join(made.factor_code(epochs, 1)), scope)
        printed = [scope["rate"](step // per_epoch) for step in range(steps)]
        np.testing.assert_allclose(0.3 * np.asarray(printed), found, rtol=1e-12)
    assert made.words(0).endswith("by 0.5 after 20 and 75 % of the training and from epoch 4 on")


def test_half_a_cosine_then_a_line_against_its_formula():
    made = schedules.CosineLinear()
    for steps, per_epoch in ((12, 1), (60, 5), (57, 5), (7, 1)):
        epochs = -(-steps // per_epoch)
        found = np.asarray(made.rates(0.2, steps, per_epoch))
        for step in range(steps):
            e = step // per_epoch
            wanted = 0.2 * np.cos(np.pi * e / (4 * epochs)) ** 2  # (1 + cos 2a) / 2 = cos^2 a
            if e / epochs > 5 / 6:
                wanted = 0.2 * np.cos(5 * np.pi / 24) ** 2 * (1 - e / epochs)
            assert found[step] == pytest.approx(wanted, rel=1e-12)
        scope: dict = {}
        exec("import math\n" + "\n".join(made.factor_code(steps, per_epoch)), scope)
        printed = [scope["rate"](step) for step in range(steps)]
        np.testing.assert_allclose(0.2 * np.asarray(printed), found, rtol=1e-12)
    assert schedules.from_json(made.to_json()) == made


def test_multistep_trains_as_a_rate_for_every_step():
    dset = distilled_set.validate(make(), "made")
    schedule = {"kind": "multistep", "milestones": [0.5], "gamma": 0.1}
    train = {"schedule": schedule, "drop": None, "passes": 4, "lr": 0.1}
    said = distilled_set.merge(dset.recipe, {"train": train})
    planned = train_eval.plan(dset._replace(recipe=said))
    np.testing.assert_allclose(planned.lr, [0.1, 0.1, 0.01, 0.01], rtol=1e-12)
    assert planned.recipe.schedule is None and planned.steps == 4


@pytest.mark.parametrize("net_name", ["MLP", "ConvNetBN"])
def test_the_average_of_the_weights_against_a_loop_in_numpy(net_name):
    """w̄ after each of 5 steps; batch norm's statistics are the trained net's; off is the same."""
    more = {"width": 4, "depth": 1} if net_name == "ConvNetBN" else {}
    net, draw = nets.make(net_name, SHAPE, CLASSES, **more), np.random.default_rng(0)
    images = jnp.asarray(draw.standard_normal((N, *SHAPE)), jnp.float32)
    labels, d = jnp.repeat(jnp.arange(CLASSES), N // CLASSES), 0.8
    keys, lr = orders.Keys(jax.random.key(1), jax.random.key(2)), jnp.float32(0.1)
    run = trainer.make(net, Recipe(classes=CLASSES, ema=d), N)
    bare = trainer.make(net, Recipe(classes=CLASSES), N)
    advance, plain = jax.jit(run.advance), jax.jit(bare.advance)
    carry, other = run.init(jax.random.key(0)), bare.init(jax.random.key(0))
    # Nets that start from given variables are averaged from these on.
    start = jax.tree.map(lambda a: a + 0.1, carry["variables"])
    carry["variables"] = other["variables"] = start
    wanted = [np.asarray(a, np.float64) for a in jax.tree.leaves(start["params"])]
    for step in range(5):
        carry, _ = advance(carry, keys, images, labels, lr, step, step + 1)
        other, _ = plain(other, keys, images, labels, lr, step, step + 1)
        weights = jax.tree.leaves(other["variables"]["params"])
        wanted = [d * a + (1 - d) * np.asarray(w) for a, w in zip(wanted, weights, strict=True)]
    tested = trainer.evaluated(carry)
    for a, b in zip(jax.tree.leaves(tested["params"]), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert trainer.evaluated(other) is other["variables"] and "average" not in other
    for name in ("params", "batch_stats"):
        ours, theirs = (one["variables"].get(name, {}) for one in (carry, other))
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs
        )
    assert tested.get("batch_stats") is carry["variables"].get("batch_stats")


def test_a_method_writes_what_its_config_asks_for(tiny, tmp_path):
    keys = {"net.name": "MLP", "nets": "MLP", "eval.ema": 0.9, "eval.schedule": "multistep"}
    known = {k: v for k, v in tiny.items() if k in config.schema("random")}
    context = runs.context({"method": "random"} | known | keys | {"steps": 0}, tmp_path)
    train = costs.example(context).recipe["train"]
    assert train["ema"] == 0.9 and train["drop"] is None
    assert train["schedule"] == {"kind": "multistep", "milestones": [0.5, 0.75], "gamma": 0.1}
