"""Published protocols of pairs: their recipes, the best of several tests, saved sets."""

from __future__ import annotations

import json

import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd.data import pairs as pair_data
from jdd.data import text
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.main import main
from jdd.methods.pairs import LORS_PROTOCOL, VL_PROTOCOL
from jdd.nets.towers import two_towers
from jdd.product.pairs import PairSet
from jdd.report import evidence, recalls, snippets
from jdd.report import recipe as words
from jdd.run import external_products, pipeline
from jdd.stages import pairs
from jdd.training import trainer
from jdd.training.recipe import Recipe

KEYS = {
    "eval.n": 2, "baselines.random": 2, "baselines.full": False, "pairs": 12, "text.captions": 1,
    "text.size": 32, "towers.size": 8, "progress": False,
}  # fmt: skip


def resolved(**keys):
    loaded = configs.load("random_pairs:digits_captions", keys)
    return configs.resolve(loaded.config)[0]


def test_lengths_and_batches_follow_the_protocol():
    found = {name: resolved(protocol=name).eval for name in ("own", "vl", "lors")}
    assert {n: (e.epochs, e.batch) for n, e in found.items()} == {
        "own": (150, 64), "vl": (51, 64), "lors": (101, 128),
    }  # fmt: skip
    own = resolved(**{"protocol": "lors", "eval.epochs": 7, "eval.batch": 5}).eval
    assert (own.epochs, own.batch) == (7, 5)
    with pytest.raises(BadInput, match="config.protocol: 'lor'.*lors"):
        resolved(protocol="lor")


def test_the_published_protocols_are_passes_steps_and_tests():
    n = 499
    cases = [
        (VL_PROTOCOL, 51 * 8, [50], None),
        (LORS_PROTOCOL, 101 * 4, list(range(0, 101, 10)), 51),
    ]
    for train, steps, tests, drop in cases:
        recipe = Recipe.from_json(train)
        net = two_towers("MLP", (4, 4, 1), 6, 5, (("width", 8),))
        run = trainer.make(net, recipe.static, n)
        planned = train_eval.Plan(
            recipe.static, 0.1, recipe.total_passes, 0, recipe.epochs, recipe.test_every
        )
        assert planned.length(run) == steps
        assert [epoch for epoch, _ in planned.tests(run)] == tests
        assert planned.tests(run)[-1][1] == steps
        assert (recipe.drop and recipe.drop.after_epoch) == drop
        assert (recipe.momentum, recipe.weight_decay, recipe.lr) == (0.9, 5e-4, None)


def test_the_best_test_is_each_nets_and_never_the_headline():
    net = two_towers("MLP", (4, 4, 1), 6, 5, (("width", 8),))
    planned = train_eval.Plan(Recipe(loss="nce", batch=4).static, 0.1, 3, 0, 3, 1)
    found = np.zeros((2, 3, 7))
    found[:, :, 0] = [[0.1, 0.5, 0.2], [0.3, 0.2, 0.1]]
    found[:, :, 1] = [[1, 2, 3], [4, 5, 6]]
    made = pairs.summarised(found, planned, net, 4)
    assert made["values"] == [0.2, 0.1] and made["tr1"]["values"] == [3, 6]
    assert made["best"]["values"] == [0.5, 0.3] and made["best"]["tr1"]["values"] == [2, 4]
    assert made["best"]["epochs"] == [0, 1, 2] and made["best"]["n"] == 2


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("lors")
    keys = KEYS | {"protocol": "lors", "eval.epochs": 12, "eval.batch": 8}
    loaded = configs.load("random_pairs:digits_captions", keys)
    return place, pipeline.run(loaded, str(place), "all", None, "test")


def test_a_run_by_lors_protocol(run):
    place, result = run
    train = jdd.load(place / "distilled.npz").recipe["train"]
    assert (train["order"], train["loss"], train["passes"], train["drop"]["after_epoch"]) == (
        "drawn", "wbce", 12, 7,
    )  # fmt: skip
    own, random = result["metrics"]["MLP"], result["baselines"]["random"]
    for found in (own, random):
        assert found["best"]["epochs"] == [0, 10, 11] and found["best"]["n"] == 2
        assert all(b >= v for b, v in zip(found["best"]["values"], found["values"], strict=True))
    table = recalls.section(evidence.gather(place))
    assert table.heads[-2:] == ["Mean", "Best of 3"] and "Best of 3" in table.note
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "Best of 3" in page and "batches of 8, each drawn anew" in page
    assert f"{100 * own['mean']:.1f}" in result["summary"]
    code = "\n".join(one.code for one in snippets.snippets(evidence.gather(place)))
    assert "b = torch.randperm(len(x))[:8]" in code
    assert code.count("for _ in range(2):  # drawn anew") == 2  # of 12 pairs


def test_a_saved_set_is_evaluated_by_another_protocol(run, tmp_path):
    place, _ = run
    learned = jdd.load(place / "distilled.npz")._replace(rates={"image": 0.3, "text": 0.1})
    train = learned.recipe["train"] | {"lr": None}
    path = learned.with_recipe(learned.recipe | {"train": train}).save(tmp_path / "x.npz")
    args = ["--mode=evaluate", f"--set={path}", "--config.eval.n=1", "--config.baselines.random=1",
            "--config.progress=false", "--config.eval.epochs=4"]  # fmt: skip
    assert main([*args, "--config.protocol=vl", f"--workdir={tmp_path / 'vl'}"]) == 0
    made: PairSet = jdd.load(tmp_path / "vl/distilled.npz")
    train = made.recipe["train"]
    assert made.recipe["protocol"] == "vl" and train["rates"] == "image" and not train["drop"]
    assert (train["passes"], train["loss"], made.rates) == (4, "wbce", learned.rates)
    assert train_eval.plan(made).lr == {"image": 0.3, "text": 0.3}
    shown = dict(words.table(evidence.gather(tmp_path / "vl")))
    assert shown["Learning rate"] == "0.3 (learned, of the image tower)"
    assert "both towers at the learned rate" in shown["Schedule"]
    code = snippets.snippets(evidence.gather(tmp_path / "vl"))
    assert sum('lr = {"image": 0.3, "text": 0.3}' in one.code for one in code) == 2
    found = json.loads((tmp_path / "vl/result.json").read_text())
    assert "best" not in found["metrics"]["MLP"]
    for name in ("own", "lor"):
        assert main([*args, f"--config.protocol={name}", f"--workdir={tmp_path / name}"]) == 2
        assert not (tmp_path / name).exists()


def test_image_towers_and_text_towers_are_crossed(run, tmp_path):
    place, _ = run
    args = ["--mode=evaluate", f"--set={place / 'distilled.npz'}", "--config.eval.n=1",
            "--config.baselines.random=1", "--config.progress=false", "--config.eval.epochs=2",
            "--config.nets=MLP,MLP+linear,ConvNet+mlp", f"--workdir={tmp_path / 'e'}"]  # fmt: skip
    assert main(args) == 0
    found = json.loads((tmp_path / "e/result.json").read_text())
    assert list(found["metrics"]) == ["MLP", "MLP+linear", "ConvNet+mlp"]
    assert found["baselines"]["random"]["net"] == "MLP"
    sizes = {name: one["parameters"] for name, one in found["nets"].items()}
    e = 8
    # The run's own image tower has its options; the default head is two layers and a LayerNorm.
    assert sizes["MLP"] - sizes["MLP+linear"] == e * e + e + 2 * e
    page = (tmp_path / "e/report.html").read_text(encoding="utf-8")
    assert "MLP+linear" in page and "ConvNet+mlp" in page
    assert main([*args[:-2], "--config.nets=MLP+lin", f"--workdir={tmp_path / 'f'}"]) == 2
    assert not (tmp_path / "f").exists()


def test_options_of_pairs_are_refused_of_images(tmp_path):
    from jdd.evaluation import rules
    from tests.tiny_distilled import make

    dset = jdd.load(make().save(tmp_path / "x.npz"))
    for entry in ({"order": "drawn"}, {"rates": "image"}, {"test_every": 10}):
        recipe = dset.recipe | {"train": dset.recipe["train"] | entry}
        with pytest.raises(BadInput, match=f"recipe.train.{next(iter(entry))}"):
            rules.validate_recipe(dset._replace(recipe=recipe), "x")


def test_a_saved_sets_rate_drops_halfway_of_the_epochs_it_is_given(run):
    place, _ = run
    made = jdd.load(place / "distilled.npz")
    long = made.recipe["train"] | {"drop": {"after_epoch": 51, "factor": 0.1}, "steps": 900}
    long = made.with_recipe(made.recipe | {"train": long})
    train = external_products._retrained(long, {"eval.epochs": 20}).recipe["train"]
    assert (train["passes"], train["drop"]["after_epoch"], train["steps"]) == (20, 11, None)
    both = external_products._retrained(long, {"eval.epochs": 20, "eval.steps": 7})
    assert both.recipe["train"]["steps"] == 7


def test_captions_of_a_test_are_encoded_by_the_sets_own_encoder(run, tmp_path, capsys):
    place, _ = run
    made = jdd.load(place / "distilled.npz")
    loaded = configs.load("random_pairs", {"text.captions": 5})
    ready = external_products.prepare(made, loaded._replace(explicit={"text.captions"}), tmp_path)
    assert ready.dataset.encoder.to_json() == text.from_json(made.recipe["text"]).to_json()
    assert len(ready.dataset.test.captions) == 5 * len(ready.dataset.test.images)
    assert pair_data.of_recipe(made.recipe).fingerprint == made.recipe["data_fingerprint"]
    plain = pair_data.load(ready.config.data, ready.config.text)
    assert plain.fingerprint != ready.dataset.fingerprint
    entry = made.recipe["text"] | {"encoder": "bert", "pool": "mean"}
    with pytest.raises(BadInput, match="config.text.encoder: hashed, and .* are of bert"):
        pairs.validate_data(made.with_recipe(made.recipe | {"text": entry}), plain)


def test_a_stated_rate_takes_the_place_of_learned_ones(run):
    place, _ = run
    made = jdd.load(place / "distilled.npz")._replace(rates={"image": 0.3, "text": 0.1})
    assert made.recipe["train"]["lr"] == 0.1 and made.applied_rates == {}
    assert train_eval.plan(made).lr == 0.1
    found = evidence.gather(place)._replace(product=made)
    assert words.rates(found) == "0.1" and not words.learned(found)
    code = snippets.snippets(found)
    assert sum('lr = {"image": 0.1, "text": 0.1}\n' in one.code for one in code) == 2
    schedule = Recipe(rates="image", lr=0.1).sentence("schedule")
    assert "both towers" not in schedule
