"""Copying a local directory to a URL (remote.py has the promises, remote_manifest.py the order)."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from jdd.storage import remote_manifest
from jdd.storage.remote_lease import Lost
from jdd.storage.remote_manifest import Manifest
from jdd.storage.remote_objects import Entry, Objects
from jdd.storage.remote_pull import digest, files
from jdd.storage.remote_threads import each

Stamp = tuple[int, int, int, int]  # size, inode and times of a local file
_NONE = Manifest("", {})


class Push:
    """The pushes of one command.

    Args:
      place: the folder of the digests of large files.
      before: the state at the URL, which the directory is equal to or has gone on from.
    """

    def __init__(self, objects: Objects, directory: Path, place: Path, before: Manifest | None):
        self._objects, self._directory, self._place = objects, directory, place
        self._at = before or _NONE  # the valid manifest
        self._next = ""  # the id of one whose writing failed, and may have succeeded all the same
        self._unsettled = before is not None
        self._stamps: dict[str, tuple[Stamp, Entry]] = {}

    def push(self, validate: Callable[[], None], begin: Callable[[str], object]) -> Manifest | None:
        """Push what has changed; return the new state, None if nothing has.

        Args:
          validate: refuses if another command has the lock of the URL.
          begin: called with the new state's id before its manifest is written.

        Raises:
          Lost: another command has pushed, or has the lock. Unreachable: the place does not answer.
        """
        self._confirm()
        self.settle()
        paths = dict(files(self._directory))
        entries = {name: self._entry(name, path) for name, path in paths.items()}
        here = {name: entry for name, entry in entries.items() if entry is not None}
        old = self._at.files
        if here == old:
            return None
        validate()
        made = secrets.token_hex(8)
        sent = [name for name, entry in here.items() if old.get(name) != entry]
        staged = {
            name: f".jdd/staged/{made}/{number}"
            for number, name in enumerate(name for name in sent if name in old)
        }
        done = each(lambda name: self._sent(paths[name], staged.get(name, name)), sent)
        for name, entry in zip(sent, done, strict=True):
            if entry is None:  # deleted in the meantime
                del here[name]
                staged.pop(name, None)
            else:
                here[name] = entry
        gone = tuple(name for name in old if name not in here)
        manifest = Manifest(made, here, staged, gone)
        validate()
        self._next = made
        begin(made)
        remote_manifest.write(self._objects, manifest)
        self._at, self._next, self._unsettled = manifest, "", True
        return manifest

    def settle(self) -> None:
        """Copy the staged objects of the valid state to their names, and delete what is gone.

        Raises:
          Unreachable: the place does not answer; the next call does what is left.
        """
        if not self._unsettled:
            return
        each(self._settled, list(self._at.staged.items()))
        each(self._objects.delete, list(self._at.removed))
        self._unsettled = False

    def _settled(self, item: tuple[str, str]) -> None:
        name, staged = item
        if self._objects.copy(staged, name):
            self._objects.delete(staged)

    def _confirm(self) -> None:
        """Refuse to go on if another command has pushed; adopt a manifest that was written.

        Raises:
          Lost: another command has pushed.
        """
        found = remote_manifest.read(self._objects)
        if found is not None and found.id == self._next:
            self._at, self._unsettled = found, True
        elif (found.id if found else "") != self._at.id:
            what = "another command has taken it over and pushed"
            raise Lost(self._objects.url, what if found else "its manifest was deleted")
        self._next = ""

    def _entry(self, name: str, path: Path) -> Entry | None:
        """Return size and digest of a file; None if it is gone."""
        try:
            stamp = _stamp(path)
            known = self._stamps.get(name)
            if known is None or known[0] != stamp:
                known = self._stamps[name] = (stamp, digest(path, self._place))
            return known[1]
        except FileNotFoundError:
            return None

    def _sent(self, path: Path, to: str) -> Entry | None:
        with contextlib.suppress(FileNotFoundError):
            return self._objects.send(to, path)
        return None


def _stamp(path: Path) -> Stamp:
    info: os.stat_result = path.stat()
    return info.st_size, info.st_ino, info.st_mtime_ns, info.st_ctime_ns
