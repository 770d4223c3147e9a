"""Milestones: states of an outer loop at sparse steps, to which a diverged run goes back.

Milestones are the steps 2^i. Each is checked, since divergence shows late, and from ``FIRST`` on
saved. They depend on the number of the step alone: an interrupted run has those of one that was not
interrupted, and an extended run those of a longer one. A run that diverges before ``2 FIRST`` goes
back to step 0, which needs no file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jdd.methods.base import State
from jdd.run.divergence import Cause
from jdd.storage import checkpoints

FIRST = 16  # the first step that is saved


class Milestones:
    """The milestones of one stage, the newest ``keep`` of them on disk.

    With ``verify``, one that is read is compared with its digest.

    Attributes:
      base: the milestone that the run went back to last, from which it goes on; 0: step 0.
    """

    def __init__(
        self,
        directory: Path,
        keep: int,
        fault: Callable[[State], Cause | None],
        base: int = 0,
        verify: bool = True,
    ):
        self._directory, self._keep, self._fault, self.base = directory, keep, fault, base
        self._verify = verify

    def due(self, step: int) -> bool:
        """Return whether a step is a milestone."""
        return step > 0 and not step & (step - 1)

    def fault(self, state: State) -> Cause | None:
        """Return what is wrong with a finite state; None if nothing is."""
        return self._fault(state)

    def saved(self) -> list[int]:
        """Return the saved steps that may be gone back to, the newest first."""
        found = (int(path.name) for path in self._directory.glob("[0-9]*") if path.name.isdigit())
        return sorted(found, reverse=True)[: self._keep]

    def before(self, step: float) -> int:
        """Return the newest saved step that is not after ``step``, or 0."""
        return next((saved for saved in self.saved() if saved <= step), 0)

    def save(self, step: int, carry: Any) -> None:
        """Save the carry of a milestone, once, and delete those older than `keep` allows."""
        if step < FIRST or not self._keep or step in self.saved():
            return
        checkpoints.save(self._directory / str(step), carry)
        remaining = self.saved()
        self._delete(lambda other: other < remaining[-1])

    def restore(self, step: int, like: Any) -> Any:
        """Return the carry of a saved step."""
        remedy = "begin the run anew in another --workdir"  # what follows was made from it
        return checkpoints.restore(self._directory / str(step), like, self._verify, remedy)

    def forget_after(self, step: int) -> None:
        """Delete the milestones after ``step``, which are of rates no longer in force."""
        self._delete(lambda other: other > step)

    def _delete(self, out: Callable[[int], bool]) -> None:
        for path in self._directory.glob("[0-9]*"):
            if path.name.isdigit() and out(int(path.name)):
                shutil.rmtree(path)
