"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
from collections.abc import Callable
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
        part.unlink(missing_ok=True)
    return path
