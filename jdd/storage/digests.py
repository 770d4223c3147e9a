"""Hashes of large files, each computed once: stored by path, size and times of change."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
from pathlib import Path

from jdd.errors import BadInput
from jdd.storage import json_files

SMALL = 1 << 24  # bytes of a file that is hashed anew by every process
MOST = 1000  # stored hashes


def of_file(path: Path, known: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits.

    Args:
      path: the file. It is read again when its size, inode, or time of change differs.
      known: JSON file with the hashes of files above ``SMALL`` bytes; one that cannot be written
        costs time alone.

    Raises:
      OSError: the file cannot be read.
    """
    state = path.stat()
    times = (state.st_mtime_ns, state.st_ctime_ns)
    return _of(str(path.resolve()), state.st_size, state.st_ino, times, known)


@functools.lru_cache(maxsize=256)
def _of(path: str, size: int, inode: int, times: tuple[int, int], known: Path) -> str:
    name = json.dumps([path, size, inode, *times])
    stored = _read(known) if size > SMALL else {}
    if name in stored:
        return stored[name]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if size > SMALL:
        last = list({**_read(known), name: found}.items())[-MOST:]
        with contextlib.suppress(OSError, BadInput):
            known.parent.mkdir(parents=True, exist_ok=True)
            json_files.write(known, dict(last))
    return found


def _read(known: Path) -> dict[str, str]:
    """Return the stored hashes; none of a damaged file."""
    return json_files.recall(known) or {}
