"""Collapse of pairs is named where recall is at chance while the loss fell, and only there."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jdd.report.collapse import FALLEN, LIMIT, sentence, sentences
from jdd.report.evidence import gather
from jdd.run.result import _collapsed

FALLING = list(np.linspace(1.9, 0.7, 100))


def test_the_sentence_has_the_figures_and_the_keys_in_their_order():
    words = sentence(FALLING, 0.021, 0.02, {"lr_sim": 1.0, "lr_img": 100.0, "lr_y": 5.0})
    assert words == (
        "collapsed: recall is at chance (2.1 % against 2.0 %) although the matching loss fell "
        "from 1.85 to 0.755; lower lr_sim first (now 1), then lr_img (now 100)"
    )
    alone = sentence(FALLING, 0.0, 0.02, {"lr_img": 100.0})
    assert alone.endswith("; lower lr_img first (now 100)")
    assert sentence(FALLING, 0.0, 0.02, {"lr_sim": 0.0}).endswith("from 1.85 to 0.755")


@pytest.mark.parametrize("recall, named", [(0.0, True), (LIMIT, True), (LIMIT + 1e-3, False)])
def test_the_threshold_of_recall(recall, named):
    assert bool(sentence(FALLING, 0.02 * recall, 0.02, {})) is named


@pytest.mark.parametrize(
    "end, words",
    [
        (FALLEN - 1e-3, "collapsed: recall is at chance (2.0 % against 2.0 %) although the"),
        (FALLEN + 1e-3, "and the matching loss hardly moved, from 1 to 0.901"),
        (1 / FALLEN - 1e-2, "and the matching loss hardly moved, from 1 to 1.1"),
        (1 / FALLEN + 1e-2, "and the matching loss rose from 1 to 1.12; lower lr_sim first"),
    ],
)
def test_the_thresholds_of_the_loss(end, words):
    losses = [1.0] * 10 + [1.5] * 80 + [end] * 10  # what lies between does not count
    for measured in (losses, [np.nan, *losses, np.inf]):
        found = sentence(measured, 0.02, 0.02, {"lr_sim": 1.0})
        assert words in found
        assert found.startswith("collapsed" if end < FALLEN else "failed")
        assert ("lower lr_sim" in found) == ("hardly" not in found)


def test_no_collapse_without_losses():
    assert not sentence([], 0.0, 0.02, {}) and not sentence([1.0], 0.0, 0.02, {})


def result(**seeds):
    values = [score["mean"] for score in seeds.values()]
    score = {"mean": float(np.mean(values)), "std": None, "n": len(values), "values": values}
    if len(seeds) > 1:
        score["seeds"] = {name.strip("s"): one for name, one in seeds.items()}
    return {
        "task": "retrieval", "primary": "recall", "accuracy": {}, "metrics": {"MLP": score},
        "method": "lors", "dataset": "digits_captions", "seed": 0, "pairs": 20,
        "baselines": {}, "chance": {"recall": 0.08},
    }  # fmt: skip


def directory(place, found, stages):
    rows = [
        {"stage": stage, "step": step, "seconds": 1.0, "loss": loss}
        for stage in stages
        for step, loss in enumerate(FALLING)
    ]
    (place / "result.json").write_text(json.dumps(found))
    (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "config.json").write_text(json.dumps({"lr_sim": 1.0, "lr_img": 100.0, "seed": 0}))
    return gather(place)


def test_the_sentences_of_a_directory(tmp_path):
    found = result(s0={"mean": 0.09, "values": [0.09]})
    evidence = directory(tmp_path, found, ["distill"])
    (words,) = sentences(evidence)
    assert words.startswith("Collapsed: recall is at chance (9.0 % against 8.0 %)")
    assert words.endswith("lower lr_sim first (now 1), then lr_img (now 100).")
    assert _collapsed(found, tmp_path) == [words]  # at the terminal
    assert not sentences(evidence._replace(result=found | {"chance": {}}))  # an older result
    assert not _collapsed(found | {"task": "classify"}, tmp_path)


def test_the_collapsed_seed_is_named(tmp_path):
    seeds = {"s0": {"mean": 0.4, "values": [0.4]}, "s1": {"mean": 0.03, "values": [0.03]}}
    evidence = directory(tmp_path, result(**seeds), ["distill", "distill-s1"])
    (words,) = sentences(evidence)
    assert words.startswith("Seed 1 collapsed: recall is at chance (3.0 % against 8.0 %)")
