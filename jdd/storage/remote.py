"""Directories at URLs: jdd works in a local copy and mirrors it.

Object stores do not append, rename or lock, so a run could not work in one.

    CACHE/remote/HASH/mirror.json   the URL, the manifest that the copy was equal to, its last lock
    CACHE/remote/HASH/NAME/         the local copy; NAME is the last part of the URL
    CACHE/remote/WHAT/HASH/NAME/    a copy for commands that only read: a set, figures, or all
    URL/NAME                        the files, by their own names
    URL/.jdd/                       manifest, lock and staged objects (remote_manifest.py)

What is promised, of a store whose objects appear whole (remote_objects.py):

  1. ``working`` and ``reading`` leave a local copy that is equal to one state that was pushed,
     never a mixture of two: every file is compared with the digest in one manifest.
  2. A push is made by the thread that writes the files, between two writes, and becomes valid by
     one object. What is pushed is what a kill at that moment would leave, from which every command
     resumes to the same bits.
  3. If another machine has pushed since, the local copy is replaced. If not, it is the truth, and
     what could not be pushed is pushed by the next command.
  4. One command at a time writes to a URL; remote_lease.py has the limits of that.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal, NoReturn

from jdd.errors import BadInput, JddError, StorageError
from jdd.storage import flocks, json_files, remote_manifest, remote_pull, remote_push
from jdd.storage.remote_lease import NAME as LOCK
from jdd.storage.remote_lease import STALE, Lease, Lost
from jdd.storage.remote_manifest import Manifest
from jdd.storage.remote_objects import Absent, Objects, Unreachable
from jdd.storage.remote_objects import is_url as is_url

EVERY = 10.0  # seconds between pushes at checkpoints, at the least
_SHARE = 9  # times the length of a push that passes before the next one: a tenth of the time
Say = Callable[[str], object]
What = Literal["set", "figures", "all"]
_PARTS: dict[What, Callable[[str], bool]] = {
    "set": remote_pull.no_checkpoints,
    "figures": remote_pull.figures,
    "all": lambda name: True,
}


def _print(line: str) -> None:
    print(line, flush=True)


class Mirror:
    """A URL and its local directory; ``root`` is the folder of all of them."""

    def __init__(self, url: str, root: Path):
        self.objects = Objects(url)
        self.url = self.objects.url
        self.place = root / hashlib.sha256(self.url.encode()).hexdigest()[:16]
        self.directory = self.place / (
            re.sub(r"[^\w.=+-]", "_", self.url.rpartition("/")[2]) or "run"
        )
        self._state = self.place / "mirror.json"
        self._lease = Lease(self.objects)
        self._push: remote_push.Push | None = None
        self._due, self._say = 0.0, _print

    def _recall(self, name: str) -> str | None:
        value = (json_files.recall(self._state) or {}).get(name)
        return value if isinstance(value, str) else None

    def _remember(self, **values: str | None) -> None:
        known = json_files.recall(self._state) or {}
        json_files.write(self._state, {**known, "url": self.url, **values})

    @contextlib.contextmanager
    def opened(self) -> Iterator[IO[str]]:
        """Open the file of the directory's lock; make the directory if it is new.

        Raises:
          BadInput: the cache cannot be written.
        """
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / ".lock").open("a+", encoding="utf-8") as handle:
                yield handle
        except OSError as error:
            found = f"the local copy of {self.url} cannot be written ({error.strerror})"
            raise BadInput(
                str(self.directory), found, "give another --config.data.cache_dir"
            ) from error

    def pull(self, say: Say, parts: Callable[[str], bool] | None = None) -> Manifest | None:
        """Make the local copy equal to the state at the URL, unless it has gone on from there.

        The caller has the lock of the directory. Returns the state at the URL.

        Args:
          parts: of a copy that is only read, the names of the files that are needed.

        Raises:
          BadInput: there is no state at the URL, and the copy has one that was pushed there.
          Unreachable: the place does not answer.
        """
        if not self._state.exists():
            self._remember(base="" if not any(remote_pull.files(self.directory)) else None)
        found, base = remote_manifest.read(self.objects), self._recall("base")
        if found is None:
            if base == "":
                self._validate_outside()
            elif any(remote_pull.files(self.directory)):
                state = "is incomplete" if base is None else "does"
                rest = (
                    "" if base is None else f"; to go on from it, give a copy of {self.directory}"
                )
                raise BadInput(
                    self.url, f"holds nothing, and its local copy {self.directory} {state}",
                    f"delete {self.place} to begin anew{rest}",
                )  # fmt: skip
            return None
        if parts is None and found.id in (base, self._recall("next")):  # its own last push
            self._remember(base=found.id)
            return found
        self._remember(base=None, next=None)
        found, line = remote_pull.pull(
            self.objects, found, self.directory, self.place, parts or (lambda name: True)
        )
        self._remember(base=found.id)
        if line:
            say(f"{self.url}: {line} (in {self.directory})")
        return found

    def _validate_outside(self) -> None:
        """Refuse a new URL inside a directory that jdd has pushed, whose files are not its own."""
        above = self.url.rpartition("/")[0]
        while not above.endswith("/"):
            if remote_manifest.read(Objects(above)) is not None:
                found = f"lies in {above}, which a run or a store has pushed"
                raise BadInput(self.url, found, "a URL of its own, which several runs may share")
            above = above.rpartition("/")[0]

    @property
    def remedy(self) -> str:
        """What to do if another command has the lock, for errors."""
        return (
            f"wait for it; if it has ended, its lock counts for {STALE:.0f} s, or delete "
            f"{self.objects / LOCK}"
        )

    def claim(self) -> str:
        """Try to get the lock of the URL; return its owner in words, '' if it is this command.

        The caller has the lock of the directory.
        """
        earlier = self._recall("lease") or ""
        self._remember(lease=self._lease.id)
        owner, note = self._lease.claim(earlier)
        if owner:
            self._remember(lease=earlier)
        elif note:
            self._say(f"{self.url}: {note}")
        return owner

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Mirror the directory while the block runs and at its end; the lock has been claimed.

        Raises:
          StorageError: the last push failed. The work is in the directory.
        """
        try:
            self._lease.begin()
            before = self.pull(self._say)
            self._push = remote_push.Push(self.objects, self.directory, self.place, before)
            self._push.settle()
            self._due = time.monotonic() + EVERY
            _HELD[self.directory] = self
            try:
                yield
            except KeyboardInterrupt:  # at once
                raise
            except Lost:
                raise
            except BaseException as error:
                self._last(error)
                raise
            else:
                self._last(None)
        finally:
            _HELD.pop(self.directory, None)
            self._lease.end()

    def _last(self, error: BaseException | None) -> None:
        """Push at the end of a command, which may end with an error."""
        try:
            self._pushed()
        except Unreachable as failure:
            raise StorageError(
                f"{self.url}: the work since the last push is not there ({failure.reason}); it is "
                f"in {self.directory}, and the same command on this machine pushes it and goes on"
            ) from (error or failure)
        except JddError:
            if error is None:
                raise
        else:
            self._say(f"{self.url}: pushed (local copy: {self.directory})")

    def _pushed(self) -> None:
        assert self._push is not None
        begun = time.monotonic()
        try:
            if made := self._push.push(self._lease.validate, self._begun):
                self._remember(base=made.id)
                self._push.settle()
        finally:
            now = time.monotonic()
            self._due = now + max(EVERY, _SHARE * (now - begun))

    def _begun(self, made: str) -> None:
        """Remember the state that is about to become valid: the answer of the place may be lost."""
        self._remember(next=made)

    def push(self, due: bool = False) -> None:
        """Push what has changed; with ``due``, only if the last push was long enough ago.

        A place that does not answer is one line.

        Raises:
          Lost: another command writes there now.
        """
        if due and time.monotonic() < self._due:
            return
        try:
            self._pushed()
        except Unreachable as error:
            again = "it is tried again at the next checkpoint"
            self._say(f"{self.url}: not pushed ({error.reason}); {again}")


_HELD: dict[Path, Mirror] = {}  # what this process mirrors, as the locks of files are of a process
_READ: dict[Path, int] = {}  # open locks of the copies that this process reads


def checkpointed() -> None:
    """Push what this process mirrors, once something to resume from has been written."""
    for mirror in list(_HELD.values()):
        mirror.push(due=True)


def push() -> None:
    """Push what this process mirrors, at the end of a stage."""
    for mirror in list(_HELD.values()):
        mirror.push()


def local(path: str | os.PathLike[str], cache: Path) -> Path:
    """Return the local directory of a path: itself, or that of a URL below ``cache``."""
    text = os.fspath(path)
    return Mirror(text, cache / "remote").directory if is_url(text) else Path(path)


def working(path: str | os.PathLike[str], cache: Path, say: Say = _print) -> Path:
    """Return ``local``, with the state at the URL. Nothing is written at the URL.

    A directory that another command of this machine works in is left as it is.

    Raises:
      BadInput: the URL cannot be opened here, or its content is damaged or no state of jdd.
      Unreachable: the place does not answer.
    """
    text = os.fspath(path)
    if not is_url(text):
        return Path(path)
    mirror = Mirror(text, cache / "remote")
    with mirror.opened() as handle:
        if flocks.acquired(handle):
            mirror.pull(say)
    return mirror.directory


def reading(
    path: str | os.PathLike[str], cache: Path, what: What = "set", say: Say = _print
) -> Path:
    """Return a path to read from: itself, or a local copy of what is at a URL.

    The copy stays as it is while this process runs.

    Args:
      what: the files that are needed: of a set, all but checkpoints; of figures, no nets and labels
        either.

    Raises:
      BadInput, Unreachable: as ``working``; there is nothing at the URL.
    """
    text = os.fspath(path)
    if not is_url(text):
        return Path(path)
    root, parts = cache / "remote" / what, _PARTS[what]
    mirror = Mirror(text, root)
    if remote_manifest.read(mirror.objects) is not None:
        return _copied(mirror, parts, say)
    above, _, name = mirror.url.rpartition("/")
    if not above.endswith("/"):
        inner = Mirror(above, root)
        found = remote_manifest.read(inner.objects)
        if found is not None and name in found.files:
            return _copied(inner, parts, say) / name
        with mirror.opened():
            with contextlib.suppress(Absent):
                return remote_pull.one(inner.objects, name, mirror.directory / name)
    raise BadInput(mirror.url, "no file, and no directory that jdd has pushed", "one of these")


def _copied(mirror: Mirror, parts: Callable[[str], bool], say: Say) -> Path:
    handle = _READ.get(mirror.directory)
    if handle is None:
        with mirror.opened() as file:
            handle = _READ[mirror.directory] = os.dup(file.fileno())
    if flocks.acquired(handle):
        mirror.pull(lambda line: None, parts)
    else:
        say(f"{mirror.url}: another command reads {mirror.directory}: its state is used")
    while not flocks.acquired(handle, shared=True):
        time.sleep(0.2)
    return mirror.directory


def refuse_several(where: str, url: str) -> NoReturn:
    """Refuse a URL in a run of several processes: each would have a copy of its own.

    Raises:
      BadInput: naming what to give in its place.
    """
    found = f"{url}, and --coordinator"
    raise BadInput(where, found, "a folder that all processes see, such as one of NFS or Filestore")


def of(directory: str | os.PathLike[str]) -> Mirror | None:
    """Return the mirror that a directory is, or lies in, if this process does not hold it yet."""
    inner = Path(directory).absolute()
    for place in (inner, *inner.parents):
        if place in _HELD:
            return None
        if (place.parent / "mirror.json").is_file():
            url = (json_files.recall(place.parent / "mirror.json") or {}).get("url")
            mirror = Mirror(url, place.parent.parent) if is_url(url) else None
            if mirror is not None and mirror.directory.absolute() == place:
                if mirror.place.parent.name in _PARTS:
                    found = f"a copy of {url} that is only read"
                    raise BadInput(str(directory), found, f"--workdir={url}")
                return mirror
    return None
