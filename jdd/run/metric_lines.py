"""Lines of metrics.jsonl and their digests, so that damaged and missing ones are named.

``.metrics.sums`` next to the file has the digest of each line, in order, written after it. So a
process that is killed leaves at most one line, the last, without a digest.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from jdd.errors import BadInput
from jdd.storage import digest_records, regular
from jdd.storage.files import write_text

_SHOWN = 5  # line numbers in a sentence
_DIGITS = 16


class Lines(NamedTuple):
    """The whole rows of a file, and a sentence on damaged or missing lines; '' if all are whole."""

    rows: list[dict[str, Any]]
    note: str


def read(path: Path) -> Lines:
    """Return the rows of a metrics file; none if it is absent."""
    if not path.exists():
        return Lines([], "")
    try:
        lines = regular.read_bytes(path).decode(errors="replace").splitlines()
    except (OSError, BadInput) as error:
        return Lines([], f"{path} cannot be read ({error}): its lines are left out.")
    known = Counter(_sums(path))
    recorded = bool(known)
    found, damaged = list[tuple[int, dict[str, Any]]](), list[int]()
    for number, line in enumerate(lines, 1):
        row, digest = _row(line), sum_of(line)
        if row is None or recorded and not known[digest] and number < len(lines):
            damaged.append(number)
        elif recorded and not known[digest]:  # the last: whole if the process was killed after it
            (damaged.append(number) if known.total() else found.append((number, row)))
        else:
            found.append((number, row))
        known -= Counter([digest])
    return Lines([row for _, row in found], _note(path, damaged, known.total() - len(damaged)))


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    named = isinstance(row, dict) and isinstance(row.get("stage"), str)
    return row if named and type(row.get("step")) is int else None


def _note(path: Path, damaged: list[int], missing: int) -> str:
    parts = []
    if damaged:
        listed = ", ".join(map(str, damaged[:_SHOWN])) + ", ..." * (len(damaged) > _SHOWN)
        parts.append(f"{len(damaged)} damaged (line {listed})")
    if missing > 0:
        parts.append(f"{missing} missing")
    return f"{path}: lines {' and '.join(parts)}; left out." if parts else ""


def sum_of(line: str) -> str:
    """Return the digest of a line without its end."""
    return digest_records.of_bytes(line.encode())[:_DIGITS]


def place(path: Path) -> Path:
    """Return the path of the digests of a metrics file."""
    return path.with_name(".metrics.sums")


def _sums(path: Path) -> list[str]:
    try:
        words = place(path).read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return []
    return [word for word in words if len(word) == _DIGITS]


def replace(path: Path, lines: Iterable[str]) -> None:
    """Write a metrics file and its digests anew; ``lines`` have their ends.

    Raises:
      BadInput: the folder cannot be written.
    """
    lines = list(lines)
    write_text(path, "".join(lines))
    write_text(place(path), "".join(sum_of(line.rstrip()) + "\n" for line in lines))


def record_digests(path: Path) -> bool:
    """Write the digests of a metrics file that has none; return whether it had none."""
    if _sums(path) or not (lines := path.read_text(encoding="utf-8").splitlines()):
        return False
    write_text(place(path), "".join(sum_of(line) + "\n" for line in lines))
    return True
