"""Whole runs at a URL: equal to local ones, resumed on other machines, read from there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdd
from jdd import main
from jdd.errors import Interrupted
from jdd.run import loop
from jdd.run.metrics import read
from jdd.storage import checkpoints, remote, remote_lease, remote_manifest
from tests import buckets
from tests.test_stopping import words
from tests.test_study import GRID, Runs

URL = "bucket://b/run"
RUN: dict[str, Any] = {"steps": 4, "batch_real": 8, "eval.epochs": 2, "eval.lr": 0.01}
EXPERTS: dict[str, Any] = {"experts.dir": "bucket://b/experts", "experts.count": 1,
                           "experts.group": 1}  # fmt: skip


@pytest.fixture(autouse=True)
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "bucket").mkdir()
    monkeypatch.setenv(buckets.FOLDER, str(tmp_path / "bucket"))
    monkeypatch.setattr(buckets, "hooks", [])
    monkeypatch.setattr(remote, "EVERY", 0.0)
    monkeypatch.setattr(remote, "_SHARE", 0)
    monkeypatch.setattr(remote_lease, "PAUSE", 0.0)
    yield
    assert not remote._HELD


def listed(url: str = URL) -> set[str]:
    """Return the names in the manifest."""
    found = remote_manifest.read(remote.Objects(url))
    return set(found.files) if found else set()


def test_a_run_at_a_url_equals_a_local_one(
    tiny: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bucket fails, the command is killed, another machine goes on: equal to the bit."""
    keys = words(tiny, "dm", RUN)
    local = tmp_path / "run"
    assert main.main([*keys, f"--workdir={local}"]) == 0
    command = [*keys, f"--workdir={URL}"]

    # The network fails after the first checkpoint, and does not come back.
    def down(verb: str, name: str) -> None:
        if name.startswith("b/run/checkpoints/distill/4/"):
            buckets.hooks.append(gone)
            raise buckets.Down("no route")

    def gone(verb: str, name: str) -> None:
        raise buckets.Down("no route")

    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "a"))
    buckets.hooks.append(down)
    capsys.readouterr()
    assert main.main(command) == 5
    buckets.hooks.clear()
    out, err = capsys.readouterr()
    assert f"{URL}: not pushed (Down: no route); it is tried again at the next checkpoint" in out
    assert err.count("\n") == 1 and str(tmp_path / "a") in err and "the same command" in err
    assert "distilled.npz" not in listed() and (remote.local(URL, tmp_path / "a")).is_dir()

    # The machine is lost. Another is refused by its lock, takes it over later, and is stopped.
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "b"))
    assert main.main(command) == 2
    out, err = capsys.readouterr()
    assert "files pulled" in out and f"{URL}: in use by process" in err and err.count("\n") == 1
    monkeypatch.setattr(remote_lease, "STALE", -1.0)
    save = checkpoints.Steps.save

    def stopped(self: checkpoints.Steps, step: int, tree: Any) -> None:
        save(self, step, tree)
        if step == 4:
            monkeypatch.setattr(checkpoints.Steps, "save", save)
            raise Interrupted("stopped at step 4")

    monkeypatch.setattr(loop.checkpoints.Steps, "save", stopped)
    assert main.main(command) == 130
    out = capsys.readouterr().out
    assert "is taken over" in out and f"{URL}: pushed" in out
    assert any(name.startswith("checkpoints/distill/4/") for name in listed())
    assert "distilled.npz" not in listed()

    # A third machine ends it.
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "c"))
    assert main.main(command) == 0
    assert not any("lock" in name for name in buckets.objects())
    place = remote.reading(URL, tmp_path / "reader", "all")
    ours, theirs = (jdd.load(at) for at in (local, place))
    np.testing.assert_array_equal(ours.images, theirs.images)
    assert ours.lr == theirs.lr
    mine, other = (checkpoints.read(at / "checkpoints/distill/4/default") for at in (local, place))
    assert json.dumps(mine, default=np.ndarray.tolist) == json.dumps(
        other, default=np.ndarray.tolist
    )
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in
             read(at / "metrics.jsonl")] for at in (local, place)]  # fmt: skip
    assert rows[0] == rows[1]
    assert (local / "config.json").read_bytes() == (place / "config.json").read_bytes()
    steps = {name for name in listed() if name.startswith("checkpoints/distill/")}
    assert {name.split("/")[2] for name in steps if name.count("/") > 2} == {"2", "4"}

    # It is finished, on a machine that has never seen it; and is read without its checkpoints.
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "d"))
    capsys.readouterr()
    assert main.main(command) == 0
    assert "Report: " in capsys.readouterr().out
    found = jdd.load(URL)
    np.testing.assert_array_equal(found.images, ours.images)
    assert found.result is not None and found.result["accuracy"].keys() == {"ConvNet"}
    again = jdd.load(f"{URL}/distilled.npz")
    np.testing.assert_array_equal(again.images, ours.images)
    page = tmp_path / "compare.html"
    compared = jdd.compare([URL, str(local)], page)
    assert len(compared["groups"][0]["runs"]) == 2 and page.is_file()
    assert main.main(["--mode=export", f"--set={URL}", f"--to={tmp_path / 'set.safetensors'}"]) == 0
    assert main.main(["--mode=verify", f"--path={URL}"]) == 0
    assert "damaged" not in capsys.readouterr().out


def test_runs_of_two_machines_share_experts_at_a_url(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, keys = EXPERTS["experts.dir"], words(tiny, "mtt", EXPERTS)
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "a"))
    assert main.main([*keys, f"--workdir={tmp_path / 'a1'}", "--mode=experts"]) == 0
    first = listed(url)
    assert {"store.json", ".digests"} & {Path(name).name for name in first} and len(first) > 5
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "b"))
    trained: list[int] = []
    monkeypatch.setattr("jdd.pretrained.train._write", lambda *args: trained.append(1))
    assert main.main([*keys, f"--workdir={tmp_path / 'b1'}", "--mode=experts"]) == 0
    assert not trained and listed(url) == first
    assert json.loads((tmp_path / "b1/config.json").read_text())["experts"]["dir"] == url
    # A local copy that is deleted comes back.
    shutil.rmtree(tmp_path / "b")
    assert main.main([*keys, f"--workdir={tmp_path / 'b1'}", "--mode=experts"]) == 0
    assert not trained


def test_a_study_at_a_url_goes_on_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the pipeline that writes the result of a cell."""
    fake, url = Runs(), "bucket://b/study"
    monkeypatch.setattr("jdd.studies.study.pipeline.run", fake.run)
    monkeypatch.setattr("jdd.studies.study.comparison_json.write", lambda *words: None)
    last = ("herding", 2, 0)
    fake.fails = {last: Interrupted("now")}
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "a"))
    with pytest.raises(Interrupted):
        jdd.study(GRID, url)
    assert sum(name.endswith("result.json") for name in listed(url)) == 6
    before, fake.calls, fake.fails = len(fake.calls), [], {}
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "b"))
    assert jdd.study(GRID, url)["count"]["complete"] == 8
    assert (before, fake.calls) == (7, [last, ("herding", 2, 1)])
    assert {"table.csv", "study.json"} <= listed(url)


def test_a_study_whose_url_another_command_takes_over_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = Runs()
    monkeypatch.setattr("jdd.studies.study.pipeline.run", fake.run)
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "a"))
    fake.fails = {("random", 1, 1): remote_lease.Lost("bucket://b/study", "taken")}
    with pytest.raises(remote_lease.Lost):
        jdd.study(GRID, "bucket://b/study")
    assert len(fake.calls) == 2  # no further cell is begun
