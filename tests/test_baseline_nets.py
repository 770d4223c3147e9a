"""Baselines train the net of the headline: a difference is between the same nets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import jdd
from jdd import config
from jdd.report import accuracy
from jdd.report.evidence import gather
from jdd.report.headline import headline
from jdd.report.page import render
from jdd.run.result import headline as last_line
from tests import runs
from tests.test_compare import fabricate
from tests.test_report import RESULT, Page, _score

RANDOM = {"method": "random", "eval.epochs": 2, "eval.curve": 0, "steps": 0, "data.dsa": "none"}


def keys_of(tiny: dict[str, Any], **more: Any) -> dict[str, Any]:
    schema = config.schema("random")
    return {k: v for k, v in {**tiny, **RANDOM, **more}.items() if k in schema}


@pytest.mark.parametrize(
    ("nets", "which", "found"),
    [
        ("MLP", "first", ("MLP",)),
        ("ConvNet,MLP", "first", ("ConvNet",)),
        ("MLP,ConvNet", "first", ("ConvNet",)),  # the report's headline is of net.name too
        ("MLP,LeNet", "first", ("MLP",)),
        ("MLP,ConvNet", "all", ("ConvNet", "MLP")),
    ],
)
def test_which_nets_have_baselines(nets: str, which: str, found: tuple[str, ...]) -> None:
    loaded = config.load("random:digits", {"nets": nets, "baselines.nets": which})
    assert config.resolve(loaded.config)[0].baseline_nets == found


@pytest.mark.parametrize("method", ["sre2l", "cda", "gvbsm", "rded"])
def test_nets_follow_the_net_of_the_students(method: str) -> None:
    def nets(dataset: str, **more: str) -> tuple[str, ...]:
        given = {name.replace("_", "."): value for name, value in more.items()}
        return config.resolve(config.load(f"{method}:{dataset}", given).config)[0].nets

    assert nets("cifar10,ipc=10") == ("ResNet18BN",) and nets("digits") == ("ConvNetBN",)
    assert nets("cifar10,ipc=10", net_name="ConvNetBN") == ("ConvNetBN",)
    assert nets("digits", net_name="MLP") == ("MLP",)
    assert nets("cifar10,ipc=10", net_name="ConvNetBN", nets="MLP") == ("MLP",)


@pytest.mark.slow
def test_a_run_on_another_net_is_compared_on_that_net(tiny: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "run"
    first = runs.run(keys_of(tiny), place)
    assert "baselines_by_net" not in first
    assert "nets" not in json.loads((place / "config.json").read_text())["baselines"]
    both = first["baselines"]
    assert both["random"]["net"] == both["full"]["net"] == "ConvNet"
    # The same directory goes on with other nets; what it has measured stays.
    known = json.loads((place / "checkpoints/evaluate.json").read_text())
    other = runs.run(keys_of(tiny, nets="MLP"), place)
    assert other["baselines"]["random"]["net"] == other["baselines"]["full"]["net"] == "MLP"
    line = other["summary"]
    assert ": MLP " in line and "against random real images" in line
    assert "the whole training set" in line and "after 1 epoch (MLP)" in line
    assert ", 1 image per class: " in line and "ConvNet" not in line
    every = runs.run(keys_of(tiny, nets="MLP,ConvNet", **{"baselines.nets": "all"}), place)
    assert every["baselines"] == every["baselines_by_net"]["ConvNet"] == both
    assert every["baselines_by_net"]["MLP"] == other["baselines"]
    assert {"full", "full-MLP"} <= set(every["seconds"])
    later = json.loads((place / "checkpoints/evaluate.json").read_text())
    assert known.items() <= later.items() and len(later) == len(known) + 2
    assert "(ConvNet), against random real images" in every["summary"]
    assert every["summary"].count("against") == 2
    page = Page((place / "report.html").read_text())
    assert page.words.count("Random real images MLP") == 1


def test_baselines_and_scores_are_of_the_evaluated_net(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    found = runs.run(keys_of(tiny, nets="MLP", scores=True), tmp_path)  # net.name is ConvNet
    assert "baselines_by_net" not in found and found["scores"]["net"] == "MLP"
    assert found["baselines"]["random"]["net"] == found["baselines"]["full"]["net"] == "MLP"
    assert "nets" not in json.loads((tmp_path / "config.json").read_text())["baselines"]
    scores, line = found["summary"].splitlines()
    assert scores.startswith("Scores in percent (MLP): HLR ")
    assert f", LRS {100 * found['scores']['lrs']:.1f}, ARS " in scores
    assert ", 1 image per class: MLP " in line and ", against random real images " in line
    assert "after 1 epoch (MLP)" in line and "ConvNet" not in line
    assert found["scores"]["accuracy"]["syn"]["values"] == found["accuracy"]["MLP"]["values"]
    assert found["scores"]["accuracy"]["whole"]["mean"] == found["baselines"]["full"]["mean"]


def test_files_that_compare_different_nets_show_no_difference(tmp_path: Path) -> None:
    old = RESULT["baselines"]
    assert {one["net"] for one in old.values()} == {"ConvNet"}
    place = fabricate(tmp_path / "a", {"MLP": _score(0.846)})
    evidence = gather(place)
    top = headline(evidence)
    assert "".join(text.words for text in top.sentence).endswith("train an MLP to 84.6\u202f%")
    assert not any("points over" in box.what or "accuracy of" in box.what for box in top.boxes)
    assert "ConvNet" in {bar.about.split(", ")[-1] for bar in accuracy.bars(evidence)}
    assert "Random real images" in Page(render(evidence)).words
    line = last_line(json.loads((place / "result.json").read_text()), place)
    assert "against" not in line and "; another net, ConvNet: random real images 70.4" in line
    same = {"random": old["random"] | {"net": "MLP"}}
    fabricate(tmp_path / "b", {"MLP": _score(0.8)}, baselines=same)
    found = jdd.compare([place, tmp_path / "b"], tmp_path / "page.html")
    ours, theirs = (run["baselines"]["random"] for run in found["groups"][0]["runs"])
    assert ours["net"] == "ConvNet" and "net" not in theirs
    lines = [" ".join(line.split()) for line in found["summary"].splitlines()]
    assert any("70.4 ± 1.4 (5) ConvNet" in line for line in lines if line.startswith("a "))
    page = Page((tmp_path / "page.html").read_text())
    assert page.count("u", "random") == 2  # the key, and the mark of b
