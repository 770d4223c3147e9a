"""Errors with an actionable message of one line; each carries its exit code."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class JddError(Exception):
    """Base class of every error that jdd raises deliberately; exit code 1."""

    exit_code = 1


class BadInput(JddError):
    """Unusable input; one line: where, what was found, what is allowed. Exit code 2."""

    exit_code = 2

    def __init__(self, where: str, found: str, allowed: str):
        self.where, self.found, self.allowed = where, found, allowed
        between = " " if allowed.startswith("(") else "; "
        super().__init__(" ".join(f"{where}: {found}{between}{allowed}".split()))


class Diverged(JddError):
    """The loss or a variable stopped being finite; the last good set is saved. Exit code 3."""

    exit_code = 3


class OutOfMemory(JddError):
    """Memory ran out during a run; the checkpoints made so far remain. Exit code 4."""

    exit_code = 4


class StorageError(JddError):
    """A file of the run cannot be written: disk full, read-only or gone. Exit code 5.

    The checkpoints made so far remain.
    """

    exit_code = 5


class PeerLost(JddError):
    """Another process of the run has ended. Exit code 7.

    Raised where this process can save first. One that cannot reach such a place in time leaves
    with the same code, without saving (``parallel.Processes``).
    """

    exit_code = 7


class Interrupted(JddError):
    """A signal or a time limit ended the run; the checkpoint is saved. Exit code 130."""

    exit_code = 130


def nearest(word: str, words: Iterable[str]) -> str | None:
    """Return the closest of ``words`` to a mistyped ``word``, or None when nothing is close."""
    close = difflib.get_close_matches(str(word), list(words), n=1, cutoff=0.6)
    return close[0] if close else None


def contrast(found: Mapping[str, Any], mine: Mapping[str, Any]) -> tuple[str, str]:
    """Return the differing settings as text, (found, requested); ('', '') if none differ.

    A name missing on one side counts as None.
    """
    wrong = [n for n in sorted({*found, *mine}) if found.get(n) != mine.get(n)]
    theirs, ours = (", ".join(f"{n}={side.get(n)!r}" for n in wrong) for side in (found, mine))
    return theirs, ours
