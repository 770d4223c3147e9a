"""Signals that ask a run to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

Handler = Callable[[int, FrameType | None], None]
_came: set[int] = set()  # of this process, as handlers are


def stops() -> tuple[int, ...]:
    """Return the signals that ask to stop; SIGHUP unless it is ignored, as below ``nohup``."""
    heard = (int(signal.SIGINT), int(signal.SIGTERM))
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return heard if ignored else (*heard, int(signal.SIGHUP))


@contextlib.contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Give the signals ``stops()`` to ``handler``; to the earlier handlers after that."""

    def noted(number: int, frame: FrameType | None) -> None:
        _came.add(number)
        handler(number, frame)

    before = {}
    with contextlib.suppress(ValueError):  # not the main thread (a notebook server, a test)
        for number in stops():
            before[number] = signal.signal(number, noted)
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None: it was set by code outside Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def begin() -> None:
    """End this command at the first SIGTERM or SIGHUP, outside a run, when nothing is to save.

    Ctrl-C has Python's own handler.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if not _came:  # else a run has been stopped by it, and the command is about to leave
            _came.add(number)
            raise KeyboardInterrupt

    _repeated(stop)


def end() -> None:
    """Take no notice of signals that are repeated while this command leaves with its exit code."""
    _repeated(signal.SIG_IGN)


def _repeated(handler: Handler | signal.Handlers) -> None:
    for number in stops():
        if number != signal.SIGINT:
            signal.signal(number, handler)
