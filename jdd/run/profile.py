"""Traces of a few steps of each looped stage, for --profile: what runs on the device, and when."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

WARM = 2  # units before a trace, in which programs are compiled


class Profile:
    """Traces by ``jax.profiler``, one of each stage, in ``DIRECTORY/STAGE``.

    A unit is an outer step of a stage with steps (``step``), else a piece of a training of about
    two seconds (``piece``): of experts, teachers and evaluations. Pieces within a stage that has
    steps, such as those of its accuracy curve, are not counted.

    Args:
      directory: the folder of the traces.
      count: the units to trace; 0 for no traces.
      say: prints a line.
    """

    def __init__(self, directory: Path, count: int, say: Callable[[str], None]):
        self._directory, self._count, self._say = directory, count, say
        self._units: dict[str, int] = {}
        self._stage, self._stepped, self._running = "", False, ""
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def begin(self, stage: str, stepped: bool) -> None:
        """Name the stage that runs from now on, and whether it has outer steps."""
        self.end()
        self._stage, self._stepped = stage, stepped

    def step(self, stage: str) -> None:
        """Begin an outer step of ``stage``."""
        if self._count:
            self._unit(stage)

    def piece(self) -> None:
        """Begin a piece of a training."""
        if self._count and self._stage and not self._stepped:
            self._unit(self._stage)

    def _unit(self, stage: str) -> None:
        at = self._units[stage] = self._units.get(stage, 0) + 1
        if self._running and self._running != stage:
            self.end()
        if at == WARM + 1:
            self._start(stage)
        elif at == WARM + 1 + self._count:
            self.end()

    def _start(self, stage: str) -> None:
        import jax

        self._running, self._scratch = stage, tempfile.TemporaryDirectory(prefix="jdd-profile-")
        # JAX writes where a trace was started. A link is turned away from a directory that is gone.
        link = Path(self._scratch.name, "trace")
        link.symlink_to(self._directory.absolute() / stage, target_is_directory=True)
        jax.profiler.start_trace(str(link), create_perfetto_trace=True)

    def end(self) -> None:
        """Write the trace that is running, if any; without a working directory it is discarded."""
        if not self._running:
            return
        import jax

        assert self._scratch is not None
        stage, self._running = self._running, ""
        with self._scratch as scratch:
            if there := self._directory.parent.is_dir():
                for folder in (self._directory, self._directory / stage):
                    folder.mkdir(exist_ok=True)  # without the folders above it
            else:  # deleted or moved: the trace would make it anew
                Path(scratch, "trace").unlink()
            jax.profiler.stop_trace()
        if there:
            traced = min(self._units[stage] - WARM, self._count)
            self._say(f"{stage}: trace of {traced} steps in {self._directory / stage}")
