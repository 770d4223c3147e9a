"""What a command prints: text that cannot be shown is lost, and nothing else."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO, Any

_PLAIN = {"±": "+/-", "×": "x", "–": "-", "—": "-", "…": "...", "→": "->", "█": "#"}


class Output(io.TextIOBase):
    """A stream that takes every text: a closed pipe, a full disk and an ASCII locale included.

    Args:
      stream: the stream below; None where the process has none.
    """

    def __init__(self, stream: IO[str] | None):
        self._stream = stream.stream if isinstance(stream, Output) else stream

    @property
    def stream(self) -> IO[str] | None:
        """The stream below."""
        return self._stream

    def write(self, text: str) -> int:
        """Write the text if it can be; characters that the stream does not have in plain ones."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: the stream is closed
                try:
                    self._stream.write(text)
                except UnicodeEncodeError:
                    self._stream.write(plain(text, self.encoding))
        return len(text)

    def flush(self) -> None:
        """Flush the stream if it can be."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._stream.flush()

    def isatty(self) -> bool:
        """Return whether the stream is a terminal."""
        with contextlib.suppress(OSError, ValueError):
            return self._stream is not None and self._stream.isatty()
        return False

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the number of the file below."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return str(getattr(self._stream, "encoding", None) or "utf-8")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def leave(self) -> None:
        """Write what is left; what cannot be written is dropped, so that the exit does not fail."""
        if self._stream is None:
            return
        try:
            self._stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
                self._stream.flush()


def plain(text: str, encoding: str) -> str:
    """Return the text in characters of ``encoding``: '+/-' for a plus-minus sign, else '?'."""
    for sign, words in _PLAIN.items():
        text = text.replace(sign, words)
    return text.encode(encoding, "replace").decode(encoding)


def begin() -> None:
    """Make standard output and error of this process safe to write to."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file opened would become standard output or error
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = Output(sys.stdout), Output(sys.stderr)


def end() -> None:
    """Write what is left of standard output and error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, Output):
            stream.leave()
