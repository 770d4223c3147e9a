"""Weights & Biases: what is logged, that a resumed run goes on, and offline mode."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jdd.errors import BadInput
from jdd.run.metrics import Metrics
from tests import runs


class Recorded:
    """A run of the package's stand-in."""

    def __init__(self, **settings: Any):
        self.settings, self.logged, self.axes, self.finished = settings, [], {}, False

    def define_metric(self, name: str, step_metric: str) -> None:
        self.axes[name] = step_metric

    def log(self, row: dict[str, float]) -> None:
        self.logged.append(row)

    def finish(self) -> None:
        self.finished = True


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Recorded]:
    found: list[Recorded] = []
    package = types.ModuleType("wandb")
    package.Settings = dict  # type: ignore[attr-defined]

    def init(**settings: Any) -> Recorded:
        found.append(Recorded(**settings))
        return found[-1]

    package.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    return found


def test_scalars_are_logged_on_their_stage_s_axis_and_a_resumed_run_goes_on(
    tmp_path: Path, begun: list[Recorded]
) -> None:
    (tmp_path / "config.json").write_text('{"ipc": 3}')
    for step in (1, 2):
        metrics = Metrics(tmp_path, wandb=True)
        assert len(begun) == step - 1  # begun with the first scalar
        metrics.log("distill", step, loss=0.5 / step, net="ConvNet")
        metrics.log("distill", step, loss=9.0)  # there already
        metrics.close()
    first, second = begun
    assert first.logged == [{"distill/loss": 0.5, "distill/step": 1}] and first.finished
    assert first.axes == {"distill/*": "distill/step"}
    assert first.settings["config"] == {"ipc": 3} and first.settings["dir"] == str(tmp_path)
    assert first.settings["id"] == second.settings["id"]
    assert second.settings["resume"] == "allow" and second.settings["name"] == tmp_path.name
    Metrics(tmp_path).close()
    assert len(begun) == 2


def test_the_id_is_the_directory_s_own(tmp_path: Path, begun: list[Recorded]) -> None:
    """It moves with the directory; another directory at its old path has another."""

    def logged(place: Path) -> str:
        place.mkdir(exist_ok=True)
        metrics = Metrics(place, wandb=True)
        metrics.log("distill", len(begun), loss=0.5)
        metrics.close()
        return str(begun[-1].settings["id"])

    first = logged(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert logged(tmp_path / "moved") == first
    assert logged(tmp_path / "run") != first


@pytest.mark.parametrize("when", ["before the run", "at its first scalar"])
def test_no_account_is_one_line(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def fails(**settings: Any) -> None:
        raise RuntimeError("No API key configured.\nmore")

    package = types.ModuleType("wandb")
    package.Settings, package.init, package.login = dict, fails, fails  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    one = pytest.raises(BadInput, match=r"No API key configured\.\); wandb login, WANDB_MODE=off")
    if when == "before the run":
        with one:
            runs.run({**tiny, "wandb": True}, tmp_path / "run")
    else:
        metrics = Metrics(tmp_path, wandb=True)
        with one:
            metrics.log("distill", 1, loss=0.5)
        metrics.close()
    assert not (tmp_path / "run").exists()


def test_without_the_package_it_is_one_line_before_anything_is_written(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(BadInput, match=r"jdd\[wandb\]"):
        runs.run({**tiny, "wandb": True}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_package_writes_its_files_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    metrics = Metrics(tmp_path, wandb=True)
    metrics.log("distill", 1, loss=0.5)
    metrics.log("evaluate", 0, accuracy=0.9)
    metrics.close()
    assert list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
