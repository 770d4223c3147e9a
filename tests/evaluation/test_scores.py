"""Scores beside accuracy: their formulas, and what a run measures for them."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import jdd
from jdd import config
from jdd.data.catalogue import COLOUR
from jdd.errors import BadInput
from jdd.evaluation.predict import outputs
from jdd.evaluation.scores import score, scores
from jdd.product.distilled_set import DistilledSet
from jdd.run.session import Session
from jdd.stages import full
from jdd.stages import scores as stage
from tests import runs
from tests.test_report import Page

MADE_UP = {
    "whole": 0.85, "syn": 0.65, "syn_hard": 0.6, "random": 0.4, "syn_aug": 0.65,
    "random_aug": 0.4, "syn_noaug": 0.5, "random_noaug": 0.35,
}  # fmt: skip


def logistic_like(x):
    """The same curve, written from 0 on: (e^(x+1) - 1) / (e^2 - 1)."""
    return np.expm1(x + 1) / np.expm1(2)


def test_formulas_with_made_up_accuracies():
    found = scores(MADE_UP, True, 0.5, 0.5)
    np.testing.assert_allclose(
        [found.hlr, found.slr, found.ior, found.alpha, found.beta], [0.25, 0.2, 0.25, 0.0, 0.2]
    )
    np.testing.assert_allclose([found.lrs, found.ars], logistic_like(np.array([0.0, 0.2])))
    found = scores(MADE_UP, False, 0.9, 0.2)
    np.testing.assert_allclose(found.lrs, logistic_like(0.9 * 0.25 - 0.1 * 0.25))
    np.testing.assert_allclose(found.ars, logistic_like(0.2 * 0.25 + 0.8 * 0.15))
    assert found.slr is None


def test_scores_are_fractions_at_their_ends():
    assert score(-1) == 0 and score(1) == pytest.approx(1)
    best = dict.fromkeys(MADE_UP, 1.0) | dict.fromkeys(("random", "random_aug", "random_noaug"), 0)
    assert scores(best, False, 1.0, 0.5).lrs == pytest.approx(1)
    assert scores(best, False, 0.5, 0.5).ars == pytest.approx(1)


@pytest.fixture(scope="module")
def keys(tiny):
    own = {"method": "random", "steps": "auto", "scores": True, "data.dsa": "flip"}
    own |= {"eval.epochs": 12, "baselines.random": 3, "net.name": "MLP", "nets": "MLP"}
    own |= {"experts.momentum": 0.5, "align_corners": False}  # not --set's own defaults
    return {k: v for k, v in (tiny | own).items() if k in config.schema("random")}


@pytest.fixture(scope="module")
def done(keys, tmp_path_factory):
    place = tmp_path_factory.mktemp("scores")
    cached = {**keys, "data.cache_dir": str(place / "cache")}
    return place, cached, runs.run(cached, place)


def agree(found):
    """Check that the scores of a result follow from the accuracies beside them."""
    at = {name: one["mean"] for name, one in found["accuracy"].items()}
    np.testing.assert_allclose(found["hlr"], at["whole"] - at["syn_hard"])
    np.testing.assert_allclose(found["ior"], at["syn"] - at["random"])
    w, g = found["weight"], found["gamma"]
    np.testing.assert_allclose(
        found["lrs"], logistic_like(w * found["ior"] - (1 - w) * found["hlr"])
    )
    gains = [at[f"syn_{a}"] - at[f"random_{a}"] for a in ("aug", "noaug")]
    np.testing.assert_allclose(found["ars"], logistic_like(g * gains[0] + (1 - g) * gains[1]))


def test_a_run_takes_what_is_measured_and_measures_the_rest_once(done, monkeypatch, capsys):
    place, keys, result = done
    found = result["scores"]
    agree(found)
    ours, accuracy = result["accuracy"]["MLP"], found["accuracy"]
    for name in ("syn", "syn_hard", "syn_aug"):  # the recipe augments, labels are hard
        assert accuracy[name]["values"] == ours["values"]
    assert accuracy["random_aug"]["values"] == result["baselines"]["random"]["values"]
    assert accuracy["syn_noaug"]["n"] == 2 and accuracy["random_noaug"]["n"] == 3
    np.testing.assert_allclose(
        accuracy["syn_noaug"]["std"], np.std(accuracy["syn_noaug"]["values"])
    )
    assert accuracy["whole"]["mean"] == result["baselines"]["full"]["mean"]
    assert found["augmentation"] == "flip" and found["labels"] == found["random_labels"] == "hard"
    page = (place / "report.html").read_text()
    Page(page)  # every tag is closed
    assert "Label-robust score, LRS" in page and f"{100 * found['lrs']:.1f}\u202f%" in page

    def again(*args):
        raise AssertionError("measured twice")

    monkeypatch.setattr(stage, "_measure", again)
    assert runs.run({**keys, "progress": True}, place)["scores"] == found
    assert "finished" in capsys.readouterr().out
    other = runs.run({**keys, "scores_weight": 1.0}, place)["scores"]
    agree(other)
    assert other["accuracy"] == found["accuracy"] and other["alpha"] == found["ior"]


@pytest.mark.slow
def test_soft_labels_are_held_to_soft_labels_of_random_images(done, tmp_path):
    """A set of logits, from a file: its whole set is trained though baselines.full is not typed,
    and as it was in the run: that one is in the cache."""
    place, keys, result = done
    hard = DistilledSet.load(place / "distilled.npz")
    soft = hard._replace(labels=2 * np.eye(3, dtype=np.float32)[hard.labels], label_kind="logits")
    assert keys["baselines.full_epochs"] != 50
    own = ("scores", "eval.n", "baselines.random", "data.cache_dir")
    found = jdd.evaluate(soft, tmp_path, **{k: keys[k] for k in own})["scores"]
    agree(found)
    assert found["labels"] == "logits" and found["random_labels"].startswith("logits of the whole")
    np.testing.assert_allclose(
        found["slr"], found["accuracy"]["whole"]["mean"] - found["accuracy"]["syn"]["mean"]
    )
    measured = json.loads((tmp_path / "checkpoints/scores.json").read_text())
    assert found["accuracy"]["whole"] == result["scores"]["accuracy"]["whole"]
    assert len(list((place / "cache/full").iterdir())) == 1
    assert len(measured) == 5  # syn and random, with and without augmentation; syn_hard


def test_a_set_says_how_its_whole_was_trained(done, tmp_path, monkeypatch):
    """Other epochs of it when a run goes on: told in the set, and nothing is distilled again."""
    place, keys, _ = done
    again = tmp_path / "again"
    shutil.copytree(place, again)
    shutil.rmtree(again / "checkpoints/distill", ignore_errors=True)
    before = DistilledSet.load(again / "distilled.npz")
    epochs = keys["baselines.full_epochs"]
    assert before.recipe["full"]["full_epochs"] == epochs
    runs.run({**keys, "baselines.full_epochs": epochs + 1}, again)
    after = DistilledSet.load(again / "distilled.npz")
    assert after.recipe["full"]["full_epochs"] == epochs + 1
    assert after.recipe | {"full": 0} == before.recipe | {"full": 0}
    np.testing.assert_array_equal(after.images, before.images)
    partial = after._replace(recipe=after.recipe | {"full": {"momentum": 0.25}})
    jdd.evaluate(partial, tmp_path / "set", **{"eval.n": 1, "baselines.random": 0})
    config = json.loads((tmp_path / "set/config.json").read_text())
    assert str(0.25) in json.dumps(config)


def test_teacher_gives_labels_of_the_sets_kind(done):
    place, keys, _ = done
    context = runs.context(keys, place)
    dset, session = context.load_set(0), Session(place, progress=False)
    assert stage._teacher(context, dset, session) is None
    rows = np.array([3, 50, 7])
    logits = outputs(
        context.net, full.trained(context, session), context.data.train.images[rows]
    ).logits
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for kind, wanted in (
        ("logits", logits),
        ("probabilities", p),
        ("centred", (p - 1 / 3) / np.sqrt(3 / 10)),
    ):
        teacher = stage._teacher(context, dset._replace(label_kind=kind), session)
        np.testing.assert_allclose(teacher(rows), wanted, rtol=1e-5, atol=1e-6)
    session.metrics.close()


def test_augmentation_is_switched_off_or_on(done):
    place, keys, _ = done
    context = runs.context(keys, place)
    dset = context.load_set(0)
    bare = stage.switched(dset, context.data)
    assert bare.recipe["augment"] | {"align_corners": 0} == {
        "name": "none", "strategy": "", "align_corners": 0,
    }  # fmt: skip
    assert stage.switched(bare, context.data).recipe["augment"]["strategy"] == "flip"
    without = context.data._replace(dsa="none")  # colour images, of a name that nobody knows
    assert stage.switched(bare, without).recipe["augment"]["strategy"] == COLOUR
    soft = dset._replace(labels=np.eye(3)[dset.labels], label_kind="probabilities")
    assert stage.hardened(soft).labels.tolist() == dset.labels.tolist()


def test_what_has_no_scores_is_told_before_anything_is_written(keys, tmp_path):
    with pytest.raises(BadInput, match="baselines.full=false; --config.baselines.full=true"):
        runs.run({**keys, "baselines.full": False}, tmp_path / "x")
    with pytest.raises(BadInput, match="--config.scores=true with it"):
        runs.run({**keys, "scores": False}, tmp_path / "x", "scores")
    attack = {"method": "dd", "objective": "attack", "attack_class": "0", "target_class": "1"}
    tiny = {k: v for k, v in keys.items() if k in config.schema("dd")}
    with pytest.raises(BadInput, match="config.scores: true, of a set to attack trained nets"):
        runs.run({**tiny, **attack, "nets": "MLP"}, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.slow
def test_scores_are_foretold(keys, tmp_path):
    assert runs.run(keys, tmp_path / "none", "estimate")["scores"]["seconds"] > 0
