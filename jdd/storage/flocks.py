"""Locks of the kernel on local files: released when the process ends, however it does."""

from __future__ import annotations

import errno
import fcntl
from typing import IO


def acquired(file: IO[str] | int, shared: bool = False) -> bool:
    """Try to lock a file; return whether it succeeded. True on file systems without locks."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in (errno.EAGAIN, errno.EACCES)
    return True
