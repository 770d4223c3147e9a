"""Digests of stored files and trees, so that damaged ones are never used without a word.

Each folder has one hidden file, ``.digests``, of lines "KIND DIGEST SUM NAME":

    arrays   SHA-256 of the arrays of an Orbax item: of names, types, shapes and bytes
    layout   SHA-256 of their names, types and shapes alone, compared before memory is allocated
    file     SHA-256 of a file

``SUM`` is the CRC-32 of the rest, so a damaged line counts as none. A digest is appended before its
file is renamed into place. A file is whole if any digest recorded under its name fits: a process
that is killed between the two leaves the older, whole file. Files without a digest are those of
older versions, or copied without the hidden file.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from jdd.errors import BadInput

NAME = ".digests"
Kind = Literal["arrays", "layout", "file"]
Entry = tuple[str, str, str]  # kind, digest, name
_COMPACT = 1 << 16  # bytes: every time the file has grown by these, outdated lines are removed
_LAST = 2  # digests of one name that then remain: of the file in place and one being written


def of_bytes(data: bytes | memoryview) -> str:
    """Return the SHA-256 of bytes as hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def record(path: Path, kind: Kind, digest: str) -> None:
    """Append the digest of ``path``, which is about to be written.

    Raises:
      BadInput: the folder cannot be written, or is not there.
    """
    place, entry = path.parent / NAME, (kind, digest, path.name)
    # The line break before: a process may have been killed while it appended.
    text = ("\n" + _text([entry])).encode()
    try:
        with open(place, "ab") as file:
            before = file.tell()
            file.write(text)
    except OSError as error:
        raise _unwritable(place, error) from error
    if before // _COMPACT < (before + len(text)) // _COMPACT:
        _compact(path.parent, entry)


def known(path: Path, kind: Kind) -> list[str]:
    """Return the digests recorded for ``path``, the oldest first; none if it has no record."""
    return [d for k, d, name in _entries(path.parent) if (k, name) == (kind, path.name)]


def fits(path: Path, kind: Kind, digest: str) -> bool:
    """True if ``digest`` is one of those recorded for ``path``, or none is."""
    found = known(path, kind)
    return not found or digest in found


def forget(path: Path) -> None:
    """Remove what is recorded for ``path``, so that its present content counts."""
    entries = _entries(path.parent)
    left = [entry for entry in entries if entry[2] != path.name]
    if len(left) < len(entries):
        _write(path.parent, left)


def _entries(folder: Path) -> list[Entry]:
    """Return (kind, digest, name) of every whole line."""
    try:
        text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        digest, _, rest = rest.partition(" ")
        total, _, name = rest.partition(" ")
        if name and total == _sum(kind, digest, name):
            found.append((kind, digest, name))
    return found


def _sum(kind: str, digest: str, name: str) -> str:
    return f"{zlib.crc32(f'{kind} {digest} {name}'.encode()):08x}"


def _text(entries: Iterable[Entry]) -> str:
    return "".join(f"{k} {d} {_sum(k, d, name)} {name}\n" for k, d, name in entries)


def _compact(folder: Path, new: Entry) -> None:
    """Leave the newest digests of each file that is there, or about to be."""
    seen: dict[tuple[str, str], int] = {}
    left = []
    for kind, digest, name in reversed(_entries(folder)):
        seen[kind, name] = seen.get((kind, name), 0) + 1
        there = name == new[2] or os.path.lexists(folder / name)
        if there and seen[kind, name] <= _LAST:
            left.append((kind, digest, name))
    with contextlib.suppress(BadInput):
        _write(folder, left[::-1])


def _write(folder: Path, entries: Iterable[Entry]) -> None:
    place = folder / NAME
    part = place.with_name(f"{NAME}.{os.getpid()}.part")
    try:
        part.write_text(_text(entries), encoding="utf-8")
        os.replace(part, place)
    except OSError as error:
        raise _unwritable(place, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def _unwritable(place: Path, error: OSError) -> BadInput:
    found = f"cannot be written ({error.strerror or error})"
    return BadInput(str(place), found, "give a folder that can be written to")
