"""Running the tiny problem from a test, as the command line would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jdd import config
from jdd.run import pipeline
from jdd.run.context import RunContext


def run(keys: dict[str, Any], place: Path, mode: str = "all") -> dict[str, Any]:
    """Run MTT with ``keys`` in ``place`` and return its result."""
    return pipeline.run(config.load("mtt", keys), str(place), mode, None, "test")


def context(keys: dict[str, Any], place: Path) -> RunContext:
    """Return the prepared run of ``keys`` in ``place``; nothing is run or written."""
    resolved, _ = config.resolve(config.load("mtt", keys).config)
    return pipeline.prepare(resolved, place, "test")
