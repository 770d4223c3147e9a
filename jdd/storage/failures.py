"""Disks that fail during a run: recognised in any exception, and stated in one line."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

from jdd.errors import BadInput, JddError, StorageError

_CHECK = "check the disk"
# What to do about each error of the system, as the beginning of a sentence.
_REMEDIES = {
    errno.ENOSPC: "free space on that disk",
    errno.EDQUOT: "free space within your quota",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f)",
    errno.EROFS: "make that disk writable again",
    errno.EIO: _CHECK,
    errno.ENXIO: _CHECK,
    errno.ENODEV: _CHECK,
    errno.ESTALE: _CHECK,
}
_SAFE = "the work up to the last checkpoint is safe, and the same command goes on from there"
_CODE = re.compile(r"os_error_code='(\d+)'")  # in the messages of Orbax's writer
_PATH = re.compile(r'"(/[^"]+)"')


def of(error: BaseException, directory: Path | None = None) -> StorageError | None:
    """Return the error of a failing disk behind an exception; None if there is none.

    ``directory`` is named where the exception names no file.
    """
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        if isinstance(at, StorageError):
            return at
        code, where = _code(at)
        if code in _REMEDIES:
            where = where or f"a file{f' in {directory}' if directory else ''}"
            place = f"{where}: cannot be written"
            return StorageError(f"{place} ({os.strerror(code)}); {_REMEDIES[code]}: {_SAFE}")
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    return None


def _code(error: BaseException) -> tuple[int, str]:
    """Return the system's number of an exception, 0 for none, and the file that it names."""
    if isinstance(error, OSError):
        return error.errno or 0, os.fsdecode(error.filename) if error.filename else ""
    found = _CODE.search(text := str(error))
    path = _PATH.search(text)
    return (int(found[1]), path[1] if path else "") if found else (0, "")


def full(error: OSError, path: Path) -> StorageError | None:
    """Return the error of a disk that failed while ``path`` was written; None for other errors.

    A read-only disk is no failure here: the path may be one that was given.
    """
    if error.errno in _REMEDIES and error.errno != errno.EROFS:
        return of(OSError(error.errno, os.strerror(error.errno), str(path)))
    return None


def present(directory: Path) -> None:
    """Refuse to write into a folder that is gone: writing would make it anew, almost empty.

    Raises:
      StorageError: it was deleted or moved.
    """
    if not directory.is_dir():
        raise StorageError(
            f"{directory}: deleted or moved while the run was writing to it; move it back, and "
            "the same command goes on from its last checkpoint, or begins anew"
        )


def folder(path: Path, inside: Path) -> Path:
    """Make the folder ``path`` below ``inside``, a directory that is there; return ``path``.

    A working directory is made once, when its lock is taken; all that is written below it later is
    in folders that this makes.

    Raises:
      StorageError: ``inside`` is gone; it is not made anew.
    """
    present(inside)
    at = inside
    for name in path.relative_to(inside).parts:
        at /= name
        try:
            at.mkdir(exist_ok=True)  # without the folders above it
        except FileNotFoundError:
            present(inside)
            raise
    return path


@contextlib.contextmanager
def guarded(directory: Path) -> Iterator[None]:
    """Turn what a failing disk raises in a run into one line.

    Raises:
      StorageError: in place of errors of the system, of Orbax, and of a working directory that
        is gone.
    """
    try:
        yield
    except JddError as error:
        if isinstance(error, BadInput):
            if error.__cause__ is not None and (found := of(error, directory)):
                raise found from error
            present(directory)
        raise
    except Exception as error:
        if found := of(error, directory):
            raise found from error
        present(directory)
        error.add_note(f"working directory: {directory}")  # run/crash.py writes there
        raise


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Write checkpoints below ``directory``; a failure is raised once, not logged as well.

    Raises:
      StorageError: the disk failed, or the folder is gone.
    """
    present(directory)
    loggers = {name: logging.getLogger(name) for name in ("absl", "asyncio")}
    levels = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    except Exception as error:
        # The loggers stay silent: the writer's threads report the same failure once more, later.
        if found := of(error):
            raise found from error
        present(directory)
        raise
    for name, logger in loggers.items():
        logger.setLevel(levels[name])
