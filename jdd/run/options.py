"""What one command of a run is asked for, and its result does not depend on."""

from __future__ import annotations

import time
from typing import NamedTuple

_GRACE = 5.0  # seconds left to end in, at most a twentieth of the limit
_GAPS = 16  # the last pieces of work that the next one is taken to be as long as


class Options(NamedTuple):
    """Flags of a command that are no settings of its run.

    Attributes:
      again: the command to type to go on; '' for the one before.
      max_seconds: the seconds that the command may take; 0 for no limit.
      begun: when it began, by ``time.monotonic``; 0 for the start of the run.
      profile: the steps of each looped stage to trace; 0 for none.
      coordinator, processes, process: as ``parallel.begin``; '' for a run of one process.
    """

    again: str = ""
    max_seconds: float = 0.0
    begun: float = 0.0
    profile: int = 0
    coordinator: str = ""
    processes: int | None = None
    process: int | None = None


class Deadline:
    """Tells when to stop, so that saving ends before the limit.

    A piece of work (a step, with its checkpoint) is begun only if one as long as the longest of the
    last ones still ends in time.
    """

    def __init__(self, options: Options):
        self._begun = options.begun or time.monotonic()
        self.seconds = options.max_seconds
        self._last = time.monotonic()
        self._gaps: list[float] = []

    def over(self) -> bool:
        """Return whether another piece of work might end too late; asked before every piece."""
        if not self.seconds:
            return False
        now = time.monotonic()
        self._gaps = [*self._gaps[1 - _GAPS :], now - self._last]
        self._last = now
        # At most a half: one long piece, such as a compilation, must not use up the whole limit.
        margin = min(max(self._gaps), self.seconds / 2) + min(_GRACE, self.seconds / 20)
        return now - self._begun + margin >= self.seconds
