"""The file that says what a store was made with: ``{"schema": 1, "settings": {...}}``.

A store of trained nets and one of soft labels are each a folder with such a file. A run may use a
store only if its own settings are the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdd.errors import BadInput, contrast
from jdd.storage.files import write_text


def read(path: Path) -> Any:
    """Return the settings in ``path``, None where there is no such file or it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings, unless there is such a file already."""
    if not path.exists():
        write_text(path, json.dumps({"schema": 1, "settings": settings}, indent=1) + "\n")


def check(
    path: Path,
    settings: Mapping[str, Any],
    unnamed: Mapping[str, Any],
    kind: str,
    what: str,
    broken: str,
    other: str,
) -> None:
    """Refuse a store that was made with other settings; where there is no file, any will do.

    Args:
      unnamed: values of settings that older stores do not name.
      kind: what has such settings, with its article.
      what: the store, in words.
      broken: what to do where the file is damaged.
      other: what to do where the settings differ.

    Raises:
      BadInput: naming the settings that differ.
    """
    if not path.exists():
        return
    found = read(path)
    if not isinstance(found, dict):
        raise BadInput(str(path), f"not {kind}'s settings", broken)
    told, asked = contrast({**unnamed, **found}, {**unnamed, **settings})
    if told:
        raise BadInput(what, f"made with {told}", f"this run has {asked}: {other}")
