"""Objects at a URL, through ``etils.epath``: each is read, written and deleted as a whole.

Of the store is assumed what Cloud Storage and S3 promise: an object that is written appears whole
or not at all, and is read as it was written last. It need not append, rename, lock or list.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeGuard

from jdd.errors import BadInput, JddError, StorageError

_CHUNK = 8 << 20  # bytes read at a time
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_PACKAGES = {"gs": "gcsfs", "s3": "s3fs", "az": "adlfs", "hf": "huggingface_hub"}
Entry = tuple[int, str]  # bytes of an object, and their SHA-256


class Absent(LookupError):
    """There is no such object."""


class Unreachable(StorageError):
    """The place does not answer, or refuses. ``reason`` is its own message. Exit code 5."""

    def __init__(self, url: str, reason: str, then: str):
        self.reason = reason
        super().__init__(f"{url}: cannot be reached ({reason}); {then}")


def is_url(path: object) -> TypeGuard[str]:
    """Return whether a path is a URL: ``gs://bucket/run``."""
    return isinstance(path, str) and _URL.match(path) is not None


class Objects:
    """The objects below one URL, named by relative paths.

    Raises:
      BadInput: nothing is installed that opens the URL.
      Unreachable: from every method.
    """

    def __init__(self, url: str):
        from etils import epath

        self.url = url.rstrip("/")
        scheme, _, rest = self.url.partition("://")
        if not rest:
            raise BadInput(url, "names no bucket", f"{scheme}://BUCKET/PATH")
        try:
            self._top = epath.Path(self.url)
        except KeyError:
            allowed = "gs://, s3://, az://, hf://, or a scheme that a program registers with epath"
            raise BadInput(url, f"{scheme}:// is none that etils.epath opens", allowed) from None

    def __truediv__(self, name: str) -> str:
        return f"{self.url}/{name}"

    def chunks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of an object.

        Raises:
          Absent: there is none.
        """
        with contextlib.ExitStack() as stack:
            with self._reached():
                try:
                    file: Any = stack.enter_context((self._top / name).open("rb"))
                except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                    raise Absent(name) from None
            while True:
                with self._reached():
                    try:
                        data: bytes = file.read(_CHUNK)
                    except FileNotFoundError:  # TensorFlow looks for it at the first read
                        raise Absent(name) from None
                if not data:
                    return
                yield data

    def read(self, name: str, most: int = 256 << 20) -> bytes | None:
        """Return a small object; None if there is none.

        Raises:
          BadInput: it has more than ``most`` bytes.
        """
        data = bytearray()
        try:
            for chunk in self.chunks(name):
                data += chunk
                if len(data) > most:
                    raise BadInput(self / name, f"more than {most >> 20} MB", "a smaller one")
        except Absent:
            return None
        return bytes(data)

    def write(self, name: str, data: bytes) -> None:
        """Write a small object."""
        self._put(name, iter([data]))

    def send(self, name: str, path: Path) -> Entry:
        """Write the content of a file; return the size and the digest of what was written.

        Raises:
          OSError: the file cannot be read.
        """
        found, total = hashlib.sha256(), 0

        def content() -> Iterator[bytes]:
            nonlocal total
            while data := file.read(_CHUNK):
                found.update(data)
                total += len(data)
                yield data

        with open(path, "rb") as file:
            self._put(name, content())
        return total, found.hexdigest()

    def copy(self, name: str, to: str) -> bool:
        """Write the content of one object to another; return whether there is the first."""
        chunks = self.chunks(name)
        try:
            first = next(chunks, b"")
        except Absent:
            return False

        def content() -> Iterator[bytes]:
            yield first
            yield from chunks

        self._put(to, content())
        return True

    def delete(self, name: str) -> None:
        """Delete an object, if it is there."""
        with self._reached(), contextlib.suppress(FileNotFoundError):
            (self._top / name).unlink(missing_ok=True)

    def _put(self, name: str, chunks: Iterator[bytes]) -> None:
        path = self._top / name
        with self._reached(), contextlib.ExitStack() as stack:
            try:
                file: Any = stack.enter_context(path.open("wb"))
            except FileNotFoundError:  # of a store that has folders
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("wb"))
            for data in chunks:
                file.write(data)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn what the packages below epath raise into one line; they have no common type."""
        try:
            yield
        except (JddError, Absent, MemoryError):
            raise
        except ImportError as error:
            scheme = self.url.partition("://")[0]
            package = _PACKAGES.get(scheme, "the package of that scheme")
            extra = f"pip install {package}"
            raise BadInput(
                self.url, f"is opened by a package that is missing ({error})", extra
            ) from error
        except Exception as error:
            text = (
                os.strerror(error.errno)
                if isinstance(error, OSError) and error.errno
                else str(error)
            )
            reason = f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__
            then = "check the network, the address and your rights to it"
            raise Unreachable(self.url, reason, then) from error
