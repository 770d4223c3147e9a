"""An object store for tests, ``bucket://NAME/...``, that ``etils.epath`` opens.

Objects are files of one flat folder, so that several processes see them. An object appears when its
writing ends, whole; there are no folders, and nothing is appended, renamed or listed.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import quote, unquote

from etils import epath

FOLDER = "JDD_TEST_BUCKET"  # the environment variable that names it
Hook = Callable[[str, str], None]
hooks: list[Hook] = []  # called with (read, write or delete; name), before it happens


class Down(ConnectionError):
    """The network is down."""


def _call(verb: str, name: str) -> None:
    for hook in hooks:
        hook(verb, name)


class _Written(io.BytesIO):
    def __init__(self, path: Bucket):
        super().__init__()
        self._path = path

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            self._path.put(self.getvalue())


@epath.register_path_cls("bucket://")
class Bucket(PurePosixPath):
    """A path of the store."""

    @property
    def name_of_object(self) -> str:
        return str(self).removeprefix("bucket:/")

    @property
    def _file(self) -> Path:
        return Path(os.environ[FOLDER]) / quote(self.name_of_object, safe="")

    def open(self, mode: str) -> IO[bytes]:
        if mode == "wb":
            return _Written(self)
        _call("read", self.name_of_object)
        return io.BytesIO(self._file.read_bytes())

    def put(self, data: bytes) -> None:
        _call("write", self.name_of_object)
        handle, part = tempfile.mkstemp(dir=os.environ[FOLDER], prefix=".")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(part, self._file)

    def unlink(self, missing_ok: bool = False) -> None:
        _call("delete", self.name_of_object)
        self._file.unlink(missing_ok=missing_ok)


def objects() -> dict[str, bytes]:
    """Return every object by its name."""
    folder = Path(os.environ[FOLDER])
    return {unquote(p.name): p.read_bytes() for p in folder.iterdir() if p.name[0] != "."}
