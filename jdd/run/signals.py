"""Signals that ask a run to stop: Ctrl-C, SIGTERM of a scheduler, SIGHUP of a closed terminal."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


def stops() -> tuple[int, ...]:
    """Return the signals that ask to stop; SIGHUP unless it is ignored, as below ``nohup``."""
    heard = (int(signal.SIGINT), int(signal.SIGTERM))
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return heard if ignored else (*heard, int(signal.SIGHUP))


@contextlib.contextmanager
def handled(handler: Handler, numbers: tuple[int, ...] | None = None) -> Iterator[None]:
    """Give the signals ``numbers``, by default ``stops()``, to ``handler``."""
    before = {}
    with contextlib.suppress(ValueError):  # not the main thread (a notebook server, a test)
        for number in stops() if numbers is None else numbers:
            before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            # None: it was set by code outside Python, and cannot be put back.
            signal.signal(number, signal.SIG_DFL if earlier is None else earlier)


def once() -> Handler:
    """Return a handler that ends a command at the first signal and takes no notice of others.

    Before a run and after it, when there is nothing to save. Ctrl-C has Python's own handler.
    """
    came = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if not came:
            came = True
            raise KeyboardInterrupt

    return stop
