"""Atomic writing of files and folders: a reader never sees a partial one."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jdd.errors import BadInput
from jdd.storage import digest_records, failures

_SYSTEM = ("__MACOSX", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "lost+found")
_PART = re.compile(r"\..+\.(\d+)\.part")  # of this module, and of digest_records
LOCK = ".lock"  # the file of a folder that a process locks while it writes there
_ITEM = "_CHECKPOINT_METADATA"  # a file of every folder that Orbax writes
_LINKS = 3  # links to folders on one path: folders that link to each other would multiply


def hidden(name: str) -> bool:
    """True if a file or folder belongs to the system: ``.name``, ``__MACOSX``, ``@eaDir``."""
    return name.startswith(".") or name in _SYSTEM


def walk(top: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (folder, its folders, its files), sorted, from ``top`` down; links are followed.

    A link to a folder that contains it is skipped, since following it would never end; any other
    link repeats the content it points to. Hidden folders that cannot be read count as empty.
    """

    def below(
        here: str, above: tuple[str, ...], links: int
    ) -> Iterator[tuple[str, list[str], list[str]]]:
        folders: list[tuple[str, bool]] = []
        found, inside = [], (*above, os.path.realpath(here))
        try:
            with os.scandir(here) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            if not hidden(os.path.basename(here)):
                raise
            listed = []
        for entry in listed:
            if not entry.is_dir():
                found.append(entry.name)
            elif not entry.is_symlink():
                folders.append((entry.name, False))
            elif links < _LINKS and os.path.realpath(entry.path) not in inside:
                folders.append((entry.name, True))
        yield here, [name for name, _ in folders], found
        for name, link in folders:
            yield from below(os.path.join(here, name), inside, links + link)

    yield from below(os.fspath(top), (), 0)


def write_atomic(path: str | os.PathLike[str], write: Callable[[BinaryIO], object]) -> Path:
    """Call ``write`` with a temporary file next to ``path``, then rename it to ``path``.

    Raises:
      BadInput: ``path`` cannot be written.
      StorageError: the disk is full, or fails.
    """
    path = Path(path)
    # Same folder: the rename stays within one file system and is atomic.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise failures.full(error, path) or BadInput(
            str(path),
            f"cannot be written ({error.strerror or error})",
            "give a folder that exists and can be written to",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # no such folder, no part
            part.unlink(missing_ok=True)
    return path


def remove_parts(directory: Path) -> None:
    """Remove temporary files and folders below ``directory`` of processes that were killed.

    The caller has the lock of the directory and writes nothing there yet: a part of its own number
    is of an earlier process. Parts of a number that is in use here are left: they may be of an
    export, which takes no lock. Folders with a lock of their own are left to its holder, which may
    be on another machine; Orbax's, and links to folders, are not looked into.
    """
    for here, folders, files in os.walk(directory):
        if _ITEM in files or LOCK in files and here != os.fspath(directory):
            folders.clear()
            continue
        for name in (*folders, *files):
            found = _PART.fullmatch(name)
            if found is None or _runs(int(found[1])):
                continue
            path = Path(here, name)
            if name in folders and not path.is_symlink():
                folders.remove(name)
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()


def _runs(number: int) -> bool:
    """Return whether another process of this machine has this number."""
    if number == os.getpid():
        return False
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True  # of another user
    return True


def write_text(path: str | os.PathLike[str], text: str, recorded: bool = False) -> Path:
    """Write UTF-8 text with ``write_atomic``; does nothing if the file has this text already.

    Args:
      recorded: record the file's digest (``digest_records.py``).

    Raises:
      BadInput: ``path`` cannot be written.
    """
    encoded, digest = text.encode(), digest_records.of_bytes(text.encode())
    with contextlib.suppress(OSError):
        same = Path(path).read_bytes() == encoded
        if same and (not recorded or digest in digest_records.known(Path(path), "file")):
            return Path(path)
    if recorded:
        digest_records.record(Path(path), "file", digest)
    return write_atomic(path, lambda file: file.write(encoded))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to ``path``; rename it to ``path`` when the block ends.

    Raises:
      BadInput: ``path`` exists and is not empty, or cannot be written.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise BadInput(str(path), "exists already", "give a new or an empty folder")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.mkdir(parents=True)
        yield part
        if path.exists():
            path.rmdir()
        os.replace(part, path)
    except OSError as error:
        raise failures.full(error, path) or BadInput(
            str(path), f"cannot be written ({error.strerror or error})", "give another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
