"""What a terminal shows: bars and lines that stay apart, labels, and counts in words."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import jdd
from jdd.errors import BadInput
from jdd.evaluation.train_eval import Plan
from jdd.report import plain
from jdd.run.session import Session
from jdd.stages import experts
from jdd.training.recipe import Recipe
from tests import runs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_does_not_share_its_line_with_a_bar(tmp_path: Path) -> None:
    out = Terminal()
    session = Session(tmp_path, out=out)
    bar = session.bar(10, "distill", start=4)
    session.say("a note")
    bar.update(5)
    session.close_bars()
    session.say("jdd: the next line")
    session.metrics.close()
    shown = [line.rpartition("\r")[2] for line in out.getvalue().split("\n")]
    assert "a note" in shown and "jdd: the next line" in shown
    assert any("distill" in line and "a note" not in line for line in shown)


def test_epochs_are_counted_as_the_protocol_names_them() -> None:
    run: Any = SimpleNamespace(steps_per_epoch=2)
    published = Plan(Recipe(), 0.1, passes=101, epochs=100)
    seen = [published.shown(step, run) for step in range(published.length(run) + 1)]
    assert seen[:3] == [0, 0, 1] and seen[-4:] == [99, 99, 99, 100] and max(seen) == 100
    assert Plan(Recipe(), 0.1, passes=7, epochs=7).shown(14, run) == 7
    assert Plan(Recipe(), 0.1, passes=1, steps=9).shown(9, run) == 9
    assert Plan(Recipe(), 0.1, passes=1, epochs=0).shown(2, run) == 1


def test_counts_in_words() -> None:
    assert plain.plural(1, "image") == "1 image" and plain.plural(2000, "image") == "2 000 images"


@pytest.mark.parametrize("method", ["random", "sre2l"])
def test_the_report_of_no_run_leaves_no_folder(
    tiny: dict[str, Any], tmp_path: Path, method: str
) -> None:
    keys = {**jdd_keys(tiny, method), "method": method, "eval.curve": 0, "steps": 0}
    with pytest.raises(BadInput, match="is not in .*, or without --mode"):
        runs.run(keys, tmp_path / "absent", "report")
    assert not (tmp_path / "absent").exists()


def jdd_keys(tiny: dict[str, Any], method: str) -> dict[str, Any]:
    schema = jdd.config.schema(method)
    return {k: v for k, v in tiny.items() if k in schema}


def test_stages_that_are_off_are_not_called_complete(
    tiny: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"net.name": "MLP", "nets": "MLP", "eval.curve": 0, "eval.epochs": 1, "progress": True}
    keys = {**jdd_keys(tiny, "random"), **own, "baselines.full": False, "method": "random"}
    keys |= {"steps": 0, "eval.n": 1, "baselines.random": 0}
    runs.run(keys, tmp_path)
    assert "full: complete" not in capsys.readouterr().out
    runs.run(keys, tmp_path, "full")
    assert "full: off (--config.baselines.full=true)" in capsys.readouterr().out


@pytest.mark.parametrize(("batch", "warned"), [(59, False), (60, True)])
def test_an_expert_epoch_of_one_step_is_warned_of(
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    batch: int,
    warned: bool,
) -> None:
    context = runs.context({**tiny, "experts.batch": batch}, tmp_path)
    monkeypatch.setattr(experts.train, "train", lambda *given: None)
    session = Session(tmp_path)
    experts.STAGE.run(context, session)
    session.metrics.close()
    line = "experts: an epoch is one step: experts.batch=60 takes all 60 training images at once; "
    assert (f"{line}--config.experts.batch=6 " in capsys.readouterr().out) == warned


def test_experts_beyond_the_count_are_named_before_they_are_trained(
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    context = runs.context({**tiny, "experts.count": 6, "experts.group": 4}, tmp_path)
    said: list[str] = []
    monkeypatch.setattr(experts.train, "train", lambda *given: said.append(capsys.readouterr().out))
    session = Session(tmp_path)
    experts.STAGE.run(context, session)
    session.metrics.close()
    words = "6 experts asked for, 8 trained (groups of 4); "
    assert f"experts: {words}--config.experts.group=3, with a new --workdir, trains 6" in said[0]
    remedy = runs.context({**tiny, "experts.count": 6, "experts.group": 3}, tmp_path / "new")
    assert experts.surplus(remedy) == "" and remedy.groups * remedy.store.group == 6
