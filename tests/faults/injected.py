"""jdd's command line with a fault at a chosen moment, for the programs next to it.

    python -m tests.faults.injected FAULT NUMBER ARGUMENTS...

A moment is the opening for writing, renaming, making or removing of a file or folder below the
current directory: an audit hook of Python counts them, from 1. From moment ``NUMBER`` on

    note    nothing happens; every moment's path is a line of the file that JDD_MOMENTS names
    kill    the process gets SIGKILL
    full    the disk is full: no file or folder below the current directory can be made (ENOSPC),
            and what is open takes no more bytes (RLIMIT_FSIZE, which stops Orbax's writer too)
    gone    the working directory ``run`` is moved away, once
    clock   the wall clock jumps by a day at every moment, forward and back
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import sys
import time

MAKES = ("open", "os.mkdir")
MOMENTS = (*MAKES, "os.rename", "os.remove", "os.rmdir")
NOTES = "JDD_MOMENTS"
AWAY = "run moved away"
_DAY = 86_400.0
_now = time.time


class Fault:
    """The audit hook: counts moments, and acts from one of them on."""

    def __init__(self, fault: str, number: int, notes: str):
        self.fault, self.number, self.count = fault, number, 0
        self.here, self.inside = os.getcwd() + os.sep, False
        self.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if notes else -1

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if event not in MOMENTS or self.inside or not self.counts(event, args):
            return
        self.count += 1
        self.inside = True  # what a fault does is no moment
        try:
            path = os.path.abspath(os.fsdecode(args[0]))  # type: ignore[arg-type]
            if self.notes >= 0:
                os.write(self.notes, f"{path}\n".encode())
            if self.count >= self.number:
                self.act(event, path)
        finally:
            self.inside = False

    def counts(self, event: str, args: tuple[object, ...]) -> bool:
        """True if something below the current directory is about to change."""
        if not isinstance(args[0], str | bytes | os.PathLike):
            return False  # a file that is open already
        if event == "open" and not _writes(args[1], args[2]):
            return False
        return (os.path.abspath(os.fsdecode(args[0])) + os.sep).startswith(self.here)

    def act(self, event: str, path: str) -> None:
        """Do what the fault does at a moment.

        Raises:
          OSError: the disk is full.
        """
        if self.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            if event in MAKES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.fault == "gone" and not os.path.exists(AWAY):
            os.rename("run", AWAY)
        if self.fault == "clock":
            turned = _DAY if self.count % 2 else -_DAY
            time.time = lambda: _now() + turned


def _writes(mode: object, flags: object) -> bool:
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))


if __name__ == "__main__":
    sys.addaudithook(Fault(sys.argv.pop(1), int(sys.argv.pop(1)), os.environ.get(NOTES, "")))
    from jdd import main

    main.entry()
