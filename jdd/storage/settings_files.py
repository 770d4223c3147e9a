"""The settings file of a store: ``{"schema": 1, "settings": {...}}``.

Stores of trained nets and of soft labels are folders with such a file. A run may use a store only
if its own settings are equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdd.errors import BadInput, contrast
from jdd.storage import json_files


def read(path: Path) -> Any:
    """Return the settings in ``path``, None if the file is missing or damaged."""
    return (json_files.recall(path) or {}).get("settings")


def write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings unless the file exists."""
    if not path.exists():
        json_files.write(path, {"schema": 1, "settings": settings})


def validate(
    path: Path,
    settings: Mapping[str, Any],
    unnamed: Mapping[str, Any],
    kind: str,
    what: str,
    broken: str,
    other: str,
) -> None:
    """Refuse a store made with other settings; without a settings file nothing is checked.

    Args:
      path: the settings file.
      settings: those of this run.
      unnamed: values of settings that older stores do not name.
      kind: the kind of store, with its article, for errors.
      what: the store, in words, for errors.
      broken: the remedy if the file is damaged.
      other: the remedy if the settings differ.

    Raises:
      BadInput: naming the settings that differ.
    """
    if not path.exists():
        return
    found = read(path)
    if not isinstance(found, dict):
        raise BadInput(str(path), f"not {kind}'s settings", broken)
    theirs, ours = contrast({**unnamed, **found}, {**unnamed, **settings})
    if theirs:
        raise BadInput(what, f"made with {theirs}", f"this run has {ours}: {other}")
