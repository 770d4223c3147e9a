"""Copying the state at a URL into a local directory (remote.py has the promises)."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jdd.errors import BadInput
from jdd.storage import digests, remote_manifest
from jdd.storage.files import write_atomic
from jdd.storage.remote_manifest import Manifest, hidden
from jdd.storage.remote_objects import Absent, Entry, Objects
from jdd.storage.remote_threads import each

KNOWN = "hashes.json"  # digests of large local files, next to the directory
_TRIES, _WAIT = 5, 1.0  # readings of the manifest while another command pushes, seconds between


class _Other(Exception):
    """An object is not what the manifest lists."""


def figures(name: str) -> bool:
    """Return whether the figures of a run are read from a file: not its nets and labels."""
    return not name.startswith(("experts/", "squeeze/", "labels/")) and no_checkpoints(name)


def no_checkpoints(name: str) -> bool:
    """Return whether a file is other than a part of a checkpoint, which only a run reads."""
    return not (name.startswith("checkpoints/") and name.count("/") > 1)


def files(directory: Path) -> Iterator[tuple[str, Path]]:
    """Yield name and path of every file of a state; links are no part of it."""
    for top, folders, names in os.walk(directory):
        folders[:] = sorted(name for name in folders if not hidden(name))
        for name in sorted(names):
            path = Path(top, name)
            if not hidden(name) and path.is_file() and not path.is_symlink():
                yield path.relative_to(directory).as_posix(), path


def digest(path: Path, place: Path) -> Entry:
    """Return size and SHA-256 of a local file; those of large ones are stored in ``place``."""
    return path.stat().st_size, digests.of_file(path, place / KNOWN)


def pull(
    objects: Objects,
    manifest: Manifest,
    directory: Path,
    place: Path,
    parts: Callable[[str], bool],
) -> tuple[Manifest, str]:
    """Make a directory equal to the parts of a manifest, or of one that a push makes meanwhile.

    Returns:
      The manifest, and what was done in words; '' for nothing.

    Raises:
      BadInput: an object that the manifest lists is missing or damaged.
      StorageError: the local disk failed. Unreachable: the place does not answer.
    """
    count, total = 0, 0
    for left in reversed(range(_TRIES)):
        wanted = {name: entry for name, entry in manifest.files.items() if parts(name)}
        missing = [n for n, e in wanted.items() if not _same(directory / n, e, place)]
        fetch = functools.partial(_fetched, objects, manifest, directory)
        whole = each(fetch, missing)
        count += sum(whole)
        total += sum(wanted[n][0] for n, there in zip(missing, whole, strict=True) if there)
        wrong = [name for name, there in zip(missing, whole, strict=True) if not there]
        if not wrong:
            break
        found = remote_manifest.read(objects)
        if not left or found is None or found.id == manifest.id and left < _TRIES - 1:
            raise BadInput(
                objects / wrong[0], "missing, or not as it was pushed",
                f"what else is there: a command on a machine with a local copy; or delete "
                f"{objects / remote_manifest.NAME} to begin anew",
            )  # fmt: skip
        manifest = found
        time.sleep(_WAIT)
    gone = [path for name, path in files(directory) if name not in wanted]
    for path in gone:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # not empty
            for folder in path.parents:
                if folder == directory:
                    break
                folder.rmdir()
    words = [f"{count} files pulled, {total / 1e6:.1f} MB"] * bool(count)
    words += [f"{len(gone)} that are not there removed"] * bool(gone)
    return manifest, ", ".join(words)


def _same(path: Path, entry: Entry, place: Path) -> bool:
    try:
        return path.stat().st_size == entry[0] and digest(path, place) == entry
    except OSError:
        return False


def _fetched(objects: Objects, manifest: Manifest, directory: Path, name: str) -> bool:
    """Copy a file of the manifest; return whether it was found, under its name or staged."""
    to, (size, expected) = directory / name, manifest.files[name]
    for source in filter(None, (name, manifest.staged.get(name))):

        def write(file: BinaryIO, source: str = source) -> None:
            found, total = hashlib.sha256(), 0
            for data in objects.chunks(source):
                total += len(data)
                if total > size:
                    raise _Other
                found.update(data)
                file.write(data)
            if (total, found.hexdigest()) != (size, expected):
                raise _Other

        with contextlib.suppress(_Other, Absent):
            to.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(to, write)
            return True
    return False


def one(objects: Objects, name: str, to: Path) -> Path:
    """Copy one object that no manifest lists.

    Raises:
      Absent: there is none.
    """

    def write(file: BinaryIO) -> None:
        for data in objects.chunks(name):
            file.write(data)

    return write_atomic(to, write)
