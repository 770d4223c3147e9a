"""Directories that go away below a run, and what killed processes leave in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jdd.errors import BadInput, StorageError
from jdd.run import metrics, session
from jdd.stages import steps_back
from jdd.storage import checkpoints, digest_records, failures
from tests import runs


def test_a_deleted_directory_is_noticed(tmp_path: Path) -> None:
    place = tmp_path / "run"
    place.mkdir()
    log, steps = metrics.Metrics(place), checkpoints.Steps(place / "checkpoints" / "distill")
    log.log("distill", 1, loss=1.0)
    shutil.rmtree(place)
    with pytest.raises(StorageError, match=f"{place}: deleted or moved"):
        log.log("distill", 2, loss=1.0)
    with pytest.raises(StorageError, match="deleted or moved"):
        steps.save(2, {})
    steps.close()
    log.close()
    assert not place.exists()  # it is not made anew, almost empty


def test_a_directory_that_is_gone_is_noticed_between_lines_of_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "run"
    place.mkdir()
    made = session.Session(place, progress=False)
    place.rename(tmp_path / "moved")
    made.check()  # it has just been looked for
    monkeypatch.setattr(session, "_LOOK", 0.0)
    with pytest.raises(StorageError, match="deleted or moved"):
        made.check()
    made.metrics.close()


def test_nothing_makes_a_directory_anew_that_is_gone(tiny: dict[str, Any], tmp_path: Path) -> None:
    place = tmp_path / "run"
    context = runs.context(tiny, place)
    place.mkdir()
    made = session.Session(place, progress=False)
    shutil.rmtree(place)

    def lock() -> None:
        with session.locked(place / "experts", made):
            pass

    writers: list[Callable[[], object]] = [
        lock,
        lambda: context.remember("evaluate", "key", 1),
        lambda: steps_back._write(context, 0, "taken", []),
        lambda: checkpoints.Steps(place / "checkpoints/distill"),
        lambda: checkpoints.save(place / "experts/g0000/e0000", {}),
        lambda: failures.folder(place / "samples/distill", place),
    ]
    for write in writers:
        with pytest.raises(StorageError, match="deleted or moved"):
            write()
    with pytest.raises(BadInput, match="cannot be written"):
        digest_records.record(place / "result.json", "file", "0")
    assert not place.exists()
    made.metrics.close()
    place.mkdir()
    context.remember("evaluate", "key", 1)
    assert context.recall("evaluate") == {"key": 1}
    assert failures.folder(place / "samples/distill", place).is_dir()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    dead, own, alive = (f".{{}}.{pid}.part" for pid in (ended.pid, os.getpid(), other.pid))
    removed = [
        tmp_path / dead.format("result.json"),
        tmp_path / "checkpoints" / own.format("evaluate.json"),
        tmp_path / "labels" / dead.format("e0001.npz"),
        tmp_path / "labels" / f".digests.{ended.pid}.part",
        tmp_path / dead.format("pictures") / "0.png",
        tmp_path / f".x.{10**30}.part",
    ]
    left = [
        tmp_path / "result.json",
        tmp_path / alive.format("distilled.npz"),
        tmp_path / alive.format("export") / "0.png",
        tmp_path / f"mine.{ended.pid}.part",
        tmp_path / "checkpoints" / ".a.b.part",
    ]
    # Of a store that a process of another machine may be writing, and of Orbax.
    stored = tmp_path / "experts" / "digits" / dead.format("settings.json")
    inside = tmp_path / "experts" / "digits" / "0" / dead.format("x")
    item = tmp_path / "checkpoints" / "12"
    for path in (*removed, *left, stored, inside, item / "_CHECKPOINT_METADATA"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (stored.parent / ".lock").touch()
    (item / dead.format("x")).touch()
    left += [stored, inside, *item.iterdir()]

    def found() -> set[Path]:
        return {path for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}

    with session.locked(tmp_path):
        assert found() == set(left)
    with session.locked(stored.parent):
        assert found() == {*left} - {stored, inside}
    other.communicate(b"\n")
