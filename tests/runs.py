"""Running the tiny problem from a test, as the command line would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jdd import config
from jdd.errors import Interrupted
from jdd.pretrained import train
from jdd.run import pipeline
from jdd.run.context import RunContext


def run(keys: dict[str, Any], place: Path, mode: str = "all") -> dict[str, Any]:
    """Run MTT with ``keys`` in ``place`` and return its result."""
    return pipeline.run(config.load("mtt", keys), str(place), mode, None, "test")


def context(keys: dict[str, Any], place: Path) -> RunContext:
    """Return the prepared run of ``keys`` in ``place``; nothing is run or written."""
    resolved, _ = config.resolve(config.load("mtt", keys).config)
    return pipeline.prepare(resolved, place, "test")


def interrupt_after_epoch(monkeypatch: pytest.MonkeyPatch, epoch: int) -> list[tuple[int, str]]:
    """Interrupt a training of nets once it has stored ``epoch``; return what it stores, a list.

    ``monkeypatch.undo()`` lets it go on to the end.
    """
    write, seen = train._write, list[tuple[int, str]]()

    def stopped(store: Any, groups: Any, at: int, carry: Any, what: str = "variables") -> None:
        write(store, groups, at, carry, what)
        seen.append((at, what))
        if seen[-1] == (epoch, "variables"):
            raise Interrupted("now")

    monkeypatch.setattr(train, "_write", stopped)
    return seen
