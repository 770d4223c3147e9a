"""Unforeseen errors: one line for the user, and a file with the traceback."""

from __future__ import annotations

import contextlib
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

EXIT_CODE = 6
PLACE = "working directory: "  # begins the note by which an error names it
_PACKAGE = Path(__file__).resolve().parents[1]


def line(error: BaseException) -> str:
    """Write the traceback of an unforeseen error to a file; return the line that names it.

    The file lies in the working directory of the run. Outside a run, and where that cannot be
    written, it lies in the folder for temporary files.
    """
    notes = getattr(error, "__notes__", [])
    places = [note.removeprefix(PLACE) for note in notes if note.startswith(PLACE)]
    words = " ".join(str(error).split())
    found = f"{type(error).__name__}: {words[:300]}" if words else type(error).__name__
    path = _write("".join(traceback.format_exception(error)), places)
    named = f"the traceback is in {path}" if path else "--debug shows the traceback"
    return (
        f"unforeseen: {found} ({_place(error)}); {named}; please report it. Checkpoints made so "
        "far are safe: once the cause is gone, the same command goes on from there"
    )


def _place(error: BaseException) -> str:
    """Return file and line of the last call inside jdd."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if Path(frame.filename).is_relative_to(_PACKAGE)]
    if not (own or frames):
        return "outside Python"
    last = (own or frames)[-1]
    file = Path(last.filename)
    name = file.relative_to(_PACKAGE.parent) if own else file
    return f"{name}:{last.lineno}"


def _write(text: str, places: list[str]) -> str:
    """Return the path of a new file with the text; '' where none can be written."""
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    for place in map(Path, (*places, tempfile.gettempdir())):
        with contextlib.suppress(OSError):
            if place.is_dir():
                path = place / name
                path.write_text(text, encoding="utf-8")
                return str(path)
    return ""


@contextlib.contextmanager
def threads(debug: bool) -> Iterator[None]:
    """Do not print tracebacks of threads: what stops a thread is raised where its work is awaited.

    Of a writer whose disk is full, this is the same error once more. ``debug`` prints them.
    """
    if debug:
        yield
        return
    before = threading.excepthook, sys.unraisablehook
    threading.excepthook = lambda args: None
    sys.unraisablehook = lambda args: None
    yield  # and stay so: threads may end after the command
    threading.excepthook, sys.unraisablehook = before
