"""Writing files and folders so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from jdd.errors import BadInput


def write_atomic(path: str | os.PathLike, write: Callable[[BinaryIO], object]) -> Path:
    """Call ``write`` with a new file beside ``path`` and move it there once it is complete.

    Raises:
      BadInput: the place cannot be written to.
    """
    path = Path(path)
    # Same folder, so that the move stays inside one file system and is atomic.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise BadInput(
            str(path),
            f"cannot be written ({error.strerror or error})",
            "give a folder that exists and can be written to",
        ) from error
    finally:
        with contextlib.suppress(OSError):  # no such folder, no part
            part.unlink(missing_ok=True)
    return path


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder beside ``path`` that is moved there once the block is through.

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
        raise BadInput(
            str(path), f"cannot be written ({error.strerror or error})", "give another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
