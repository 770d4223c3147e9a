"""The lock of a URL: an object that names the command which writes there.

    {"id": random, "host": name, "process": number, "time": seconds since 1970}

It is renewed every ``BEAT`` seconds. A command that finds the lock of another, renewed less than
``STALE`` seconds ago, is refused; an older one is taken over. The object stores that
``etils.epath`` opens have no compare-and-swap in common. So a lock is read again ``PAUSE`` seconds
after it was written, and before and after the data of every push: of two commands that start in the
same moment, or of which one slept while the other took over, at least one finds that the lock is
not its own, and writes nothing more. The ages compare the clocks of two machines.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from typing import NamedTuple

from jdd.errors import BadInput, StorageError
from jdd.storage import json_files
from jdd.storage.remote_objects import Objects, Unreachable

NAME = ".jdd/lock.json"
BEAT, STALE, PAUSE = 30.0, 300.0, 1.0  # seconds


class Owner(NamedTuple):
    """The content of a lock."""

    id: str
    host: str
    process: int
    time: float

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Lease:
    """The lock of ``objects``, as this process sees it."""

    def __init__(self, objects: Objects):
        self._objects = objects
        self.id = secrets.token_hex(8)
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def owner(self) -> Owner | None:
        """Return the owner of the lock; None if there is no lock."""
        data = self._objects.read(NAME, 1 << 16)
        if data is None:
            return None
        try:
            found = json_files.parse(data, self._objects / NAME, "")
            return Owner(
                str(found["id"]),
                str(found["host"])[:100],
                int(found["process"]),
                float(found["time"]),
            )
        except (BadInput, KeyError, TypeError, ValueError, OverflowError):
            return Owner("", "an unknown machine", 0, time.time())

    def claim(self, earlier: str) -> tuple[str, str]:
        """Try to get the lock; return (its owner in words, '' if it is this command; a note).

        Args:
          earlier: the id of the last command that used the same local directory. That directory is
            locked by this process, so that command has ended, and its lock counts as none.
        """
        found, note = self.owner(), ""
        if found is not None and not (found.id == earlier and found.host == socket.gethostname()):
            age = time.time() - found.time
            if age <= STALE:
                return f"{found}, {_seen(age)}", ""
            note = f"the lock of {found} is taken over: {_seen(age)}"
        self.renew()
        time.sleep(PAUSE)
        found = self.owner()
        if found is None or found.id != self.id:
            return f"{found or 'another command'}, which started in the same moment", ""
        return "", note

    def renew(self) -> None:
        """Write the lock with the present time."""
        mine = Owner(self.id, socket.gethostname(), os.getpid(), time.time())
        self._objects.write(NAME, json.dumps(mine._asdict()).encode())

    def validate(self) -> None:
        """Refuse to write once the lock is not this command's.

        Raises:
          Lost: naming the owner.
        """
        found = self.owner()
        if found is None or found.id != self.id:
            what = f"{found} has taken it over" if found else "the lock of this command was deleted"
            raise Lost(self._objects.url, what)

    def begin(self) -> None:
        """Renew the lock from a thread until ``end``."""
        self._thread = threading.Thread(target=self._beat, name="jdd lock", daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            # A failure is not reported here: the next push reports its own.
            with contextlib.suppress(Unreachable, BadInput):
                found = self.owner()
                if found is None or found.id != self.id:
                    return
                self.renew()

    def end(self) -> None:
        """Give the lock back, if it is this command's and can be reached."""
        self._end.set()
        if self._thread is not None:
            self._thread.join(BEAT)
        with contextlib.suppress(Unreachable):
            found = self.owner()
            if found is not None and found.id == self.id:
                self._objects.delete(NAME)


class Lost(StorageError):
    """Another command has taken the lock over, or it was deleted. Exit code 5."""

    def __init__(self, url: str, what: str):
        super().__init__(f"{url}: {what}; this command writes nothing more there")


def _seen(age: float) -> str:
    return f"its last sign was {max(0, round(age))} s ago"
