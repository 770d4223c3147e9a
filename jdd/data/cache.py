"""Cache of arrays on disk, shared between runs: it saves time and never makes a run fail."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jdd.errors import BadInput
from jdd.storage import files, npz_files

Arrays = dict[str, np.ndarray]
_FORMAT = 1  # raised when the meaning of cached arrays changes


def folder(setting: str = "") -> Path:
    """Return the cache folder: the setting, else $JDD_CACHE, else ~/.cache/jdd."""
    return Path(setting or os.environ.get("JDD_CACHE") or "~/.cache/jdd").expanduser()


def stamp(path: Path) -> list[object]:
    """Return values that identify the present content of a file or of all files below a folder."""
    if not path.is_dir():
        info = path.stat()
        return [str(path.resolve()), info.st_size, info.st_mtime_ns]
    digest = hashlib.sha256()
    for top, folders, names in files.walk(path):
        for name in names:
            try:
                info = os.stat(os.path.join(top, name))
            except OSError:  # a dangling link; reading the folder reports it
                continue
            line = f"{top}/{name}/{info.st_size}/{info.st_mtime_ns}\n"
            digest.update(line.encode(errors="surrogateescape"))
        digest.update(json.dumps(folders).encode())
    return [str(path.resolve()), digest.hexdigest()]


def file(setting: str, kind: str, parts: object) -> Path:
    """Return the cache file of one kind of arrays, named by a hash of all that determines them."""
    text = json.dumps([_FORMAT, parts], sort_keys=True, default=str)
    return folder(setting) / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:20]}.npz"


def place(setting: str, kind: str, parts: object) -> Path:
    """Return the cache folder of files too large for one, named as ``file`` is."""
    return file(setting, kind, parts).with_suffix("")


def fill(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` on a new folder and move it to ``path`` in one step; nothing if it exists.

    A second process waits for the first. Unlike cached arrays these files are needed, so errors
    are raised.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        temporary = path.with_name(f"{path.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that was killed
        try:
            temporary.mkdir()
            write(temporary)
            os.rename(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def read(path: Path, names: tuple[str, ...] = ()) -> Arrays | None:
    """Return the cached arrays, or None if there is no complete file with all of ``names``."""
    try:
        arrays = npz_files.read(path, "")
    except BadInput:  # made again
        return None
    return arrays if all(name in arrays for name in names) else None


def write(path: Path, arrays: Arrays) -> str:
    """Write the arrays in one atomic step; return "" on success, a note for the user on failure."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as out:
            temporary = out.name
            np.savez(out, **arrays)  # type: ignore[arg-type]
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        reason = error.strerror or str(error)
        return (
            f"the cache {path.parent} cannot be written ({reason}): nothing is stored for next time"
        )
    return ""
