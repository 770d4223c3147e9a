"""A saved set is evaluated on the schema of its own method."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jdd import config, main, specs
from jdd.product.distilled_set import DistilledSet, merge
from jdd.run import set_schema
from tests import runs
from tests.test_decoupled import keys_of


@pytest.fixture(scope="module")
def done(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A finished run of SRe2L and its result."""
    place = tmp_path_factory.mktemp("sre2l")
    keys = keys_of(tiny, "sre2l", **{"baselines.random": 0, "data.name": "toy"})
    return place, runs.run(keys, place)


def asked(path: Path, place: Path, *more: str) -> list[str]:
    words = ["--mode=evaluate", f"--set={path}", f"--workdir={place}", "--config.eval.n=2"]
    return [*words, "--config.devices=1", "--config.progress=false", *more]


def saved(place: Path) -> dict[str, Any]:
    return dict(json.loads((place / "config.json").read_text()))


def test_keys_of_its_method_change_how_nets_learn(
    done: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, result = done
    hard = asked(place / "distilled.npz", tmp_path / "e", "--config.post.loss=hard")
    assert main.main(hard) == 0
    found = json.loads((tmp_path / "e/result.json").read_text())
    # The same nets on the same views: what the run has measured with hard labels.
    assert found["accuracy"]["ConvNetBN"]["mean"] == result["baselines"]["hard"]["mean"]
    written = saved(tmp_path / "e")
    assert (written["method"], written["post"]["loss"]) == ("sre2l", "hard")
    assert written["post"]["temperature"] == result_of(place)["temperature"]  # the set's own
    assert written["quantise"] == "auto"  # of its making nothing is guessed
    assert main.main(hard) == 0 and "is finished" not in capsys.readouterr().err
    loose = [word for word in hard if "post.loss" not in word]
    assert main.main(loose) == 2 and "config.post.loss was hard" in capsys.readouterr().err
    assert main.main([*hard, "--config.post.loss=hrd"]) == 2
    assert "did you mean hard?" in capsys.readouterr().err


def result_of(place: Path) -> dict[str, Any]:
    return dict(DistilledSet.load(place / "distilled.npz").recipe["train"])


def test_an_evaluation_begun_with_other_keys_goes_on_with_them(
    done: tuple[Path, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, place = done[0] / "distilled.npz", tmp_path / "old"
    with monkeypatch.context() as patch:  # as every evaluation was before sets had schemas
        patch.setattr(set_schema, "of_set", lambda *_: specs.get("mtt"))
        assert main.main(asked(path, place)) == 0
    text, kept = (place / "config.json").read_bytes(), (place / "checkpoints/evaluate.json")
    measured = kept.read_bytes()
    assert saved(place)["method"] == "mtt" and "post" not in saved(place)
    assert main.main(asked(path, place)) == 0
    assert (place / "config.json").read_bytes() == text and kept.read_bytes() == measured
    assert main.main(asked(path, place, "--config.eval.n=1")) == 0  # what may change still may
    assert saved(place)["eval"]["n"] == 1
    assert main.main(asked(path, place, "--config.post.loss=hard")) == 2
    err = capsys.readouterr().err
    assert f"{place} holds" in err and "--workdir=OTHER" in err


@pytest.fixture
def by(done: tuple[Path, Any], tmp_path: Path) -> Any:
    """Return a function that saves a plain set of another method."""

    def save(method: str) -> Path:
        dset = DistilledSet.load(done[0] / "distilled.npz")
        train = {"order": "shuffled", "loss": "cross_entropy", "optimizer": "sgd", "schedule": None}
        recipe = merge(dset.recipe, {"method": method, "train": train, "labels": {"kind": "own"}})
        recipe["train"]["parts"] = 1
        path = tmp_path / f"{method or 'foreign'}.npz"
        dset._replace(recipe=recipe).save(path)
        return path

    return save


@pytest.mark.parametrize(
    "method, key, words",
    [
        (
            "mtt",
            "post.loss=hard",
            ["config.post.loss: no key of MTT", "CDA, D4M, EDC, G-VBSM, RDED, SRe2L"],
        ),
        ("theirs", "syn_steps=3", ["no key of theirs", "DATM, FTD, LoRS, MTT, TESLA, VL"]),
        ("", "lr_y=3", ["the set names no method", "DATM"]),
        ("mtt", "eval.nn=3", ["config.eval.nn: unknown key", "did you mean config.eval.n?"]),
    ],
)
def test_a_key_that_its_method_lacks_is_refused_with_those_that_have_it(
    by: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
    key: str,
    words: list[str],
) -> None:
    assert main.main(asked(by(method), tmp_path / "e", f"--config.{key}")) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and all(word in err for word in words), err
    assert not (tmp_path / "e").exists()


def test_a_config_file_of_another_method_lends_its_common_keys(
    by: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text("def get_config():\n    return {'method': 'mtt', 'syn_steps': 3, 'seed': 4}\n")
    loaded = config.load(str(file), {"eval.n": 3}, of_set=True)
    assert loaded.apart == {"syn_steps": 3} and loaded.config.seed == 4
    dset = DistilledSet.load(by("dc"))
    spec = set_schema.of_set(dset, loaded.config.spec, tmp_path / "new")
    assert spec.name == "dc" and set_schema.typed(loaded, spec, dset, tmp_path) == {}
    own = set_schema.of_set(DistilledSet.load(by("mtt")), loaded.config.spec, tmp_path / "new")
    assert set_schema.typed(loaded, own, dset, tmp_path) == {"syn_steps": 3}
    np.testing.assert_equal(set_schema.retrained(dset, {"post.loss": "hard"}).recipe, dset.recipe)
    shutil.rmtree(tmp_path)
