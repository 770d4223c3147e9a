"""A run that is killed just after it has written what completes a stage loses no line of it.

The kill is an exception that nothing catches, raised after a chosen write.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jdd import main
from jdd.pretrained.store import Store
from jdd.product.distilled_set import DistilledSet
from jdd.run import metrics
from jdd.run.context import RunContext
from jdd.soft_labels.store import LabelStore
from jdd.stages import in_parts
from tests.pins import cases

KEYS: dict[str, Any] = {
    **cases.BASE, **cases.CASES["sre2l"].keys, "steps": 2, "ipc": 2, "image_batch": 3,
    "squeeze.epochs": 4, "baselines.hard": False,
}  # fmt: skip
LINES = {
    "squeeze-ConvNetBN": [1, 2, 3, 4], "recover": [1, 2], "relabel": [1, 2], "evaluate": [1, 2],
}  # fmt: skip


class Killed(BaseException):
    """Stands in for SIGKILL."""


def kill_after(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, when: Callable[..., bool]
) -> None:
    """Raise Killed after the first call of ``owner.name`` for which ``when`` is true."""
    write, left = getattr(owner, name), [None]

    def wrapped(*args: Any, **named: Any) -> Any:
        found = write(*args, **named)
        if when(*args) and left:
            left.pop()
            raise Killed
        return found

    monkeypatch.setattr(owner, name, wrapped)


def test_a_kill_after_the_write_that_completes_a_stage_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "cache"))
    cases.toy(Path("toy.npz"))
    argv = ["--config=sre2l:toy", "--workdir=run"]
    argv += [f"--config.{key}={value}" for key, value in KEYS.items()]
    kill_after(monkeypatch, Store, "write", lambda store, group, epoch, tree: epoch == 4)
    kill_after(monkeypatch, in_parts, "write_atomic", lambda path, write: "parts" in str(path))
    kill_after(monkeypatch, DistilledSet, "save", lambda dset, path: path.name == "distilled.npz")
    kill_after(
        monkeypatch, LabelStore, "write",
        lambda store, epoch, *rest: (store.directory.name, epoch) == ("random-0", 1),
    )  # fmt: skip
    kill_after(
        monkeypatch, RunContext, "remember",
        lambda context, name, *rest: name == "evaluate" and len(context.recall(name)) == 2,
    )  # fmt: skip
    kills = 0
    for _ in range(9):
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                assert main.main(argv) == 0
            break
        except Killed:
            kills += 1
    assert kills == 5
    rows = metrics.read("run/metrics.jsonl")
    found = {stage: [r["step"] for r in rows if r["stage"] == stage] for stage in LINES}
    assert found == LINES
    left = {path.name for path in Path("run").iterdir()}
    assert "distilled.png" in left and not [name for name in left if "unfinished" in name]
