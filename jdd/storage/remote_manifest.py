"""The manifest of a URL: which objects are the files of a working directory, or of a store.

    .jdd/manifest.json      name, size and SHA-256 of every file
    NAME                    the content of the file NAME
    .jdd/staged/ID/N        the new content of a file that an older manifest lists too

A push writes files that are new to their names and files that have changed to staged objects, then
the manifest, which makes all of them valid at once, and at last copies the staged objects to their
names and deletes what the manifest no longer lists. So at every moment, wherever a push is cut off,
each file of the manifest in place is found under its name or as its staged object. A push that is
cut off before its manifest leaves objects that no manifest lists: nothing reads them, and a later
push of the same names replaces all but the staged ones.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from jdd.errors import BadInput
from jdd.storage import json_files, regular
from jdd.storage.remote_objects import Entry, Objects

NAME = ".jdd/manifest.json"
_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAGED = re.compile(r"\.jdd/staged/[0-9a-f]+/[0-9]+")


class Manifest(NamedTuple):
    """The state that a push made valid.

    Attributes:
      id: random.
      files: size and digest by name.
      staged: objects of this push by the names of the files whose new content they are.
      removed: names that the manifest before it listed and this one does not.
    """

    id: str
    files: dict[str, Entry]
    staged: dict[str, str] = {}
    removed: tuple[str, ...] = ()


def hidden(name: str) -> bool:
    """Return whether a file or folder is no part of the state: locks, and what is being written."""
    return name in (".lock", ".jdd") or name.endswith(".part") or ".orbax-checkpoint-tmp" in name


def write(objects: Objects, manifest: Manifest) -> None:
    """Make the state of a manifest the valid one."""
    objects.write(NAME, json.dumps({"version": _VERSION, **manifest._asdict()}).encode())


def read(objects: Objects) -> Manifest | None:
    """Return the manifest; None if there is none.

    Raises:
      BadInput: it is damaged or of a newer jdd, or names files outside its folder.
      Unreachable: the place does not answer.
    """
    data = objects.read(NAME)
    if data is None:
        return None
    where = objects / NAME
    found = json_files.parse(data, where, "the manifest that jdd wrote")
    if found.get("version") != _VERSION:
        raise BadInput(where, f"of version {found.get('version')!r:.40}", "a newer jdd reads it")
    try:
        return _made(found, where)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(where, "no manifest of jdd", "the manifest that jdd wrote") from error


def _made(found: dict[str, Any], where: str) -> Manifest:
    files: dict[str, Entry] = {}
    for name, (size, digest) in found["files"].items():
        if not (isinstance(size, int) and size >= 0 and _DIGEST.fullmatch(digest)):
            raise ValueError(name)
        files[_valid(name, where)] = size, digest
    staged = dict(found["staged"])
    if not all(_STAGED.fullmatch(place) for place in staged.values()):
        raise ValueError("staged")
    removed = tuple(_valid(name, where) for name in found["removed"])
    return Manifest(
        str(found["id"]), files, {_valid(n, where): p for n, p in staged.items()}, removed
    )


def _valid(name: str, where: str) -> str:
    """Return a name that leads to a file of the state, inside its folder."""
    inner = regular.inside(Path("."), name, where).as_posix()
    if inner != name or any(hidden(part) for part in Path(name).parts):
        raise ValueError(name)
    return name
