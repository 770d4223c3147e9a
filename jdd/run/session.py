"""Interactive side of one run: directory lock, stop requests, clock and progress lines."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any

from jdd.errors import BadInput, Interrupted, JddError, PeerLost
from jdd.run import signals
from jdd.run.metrics import Metrics
from jdd.run.options import Deadline, Options
from jdd.run.output import Output
from jdd.run.profile import Profile
from jdd.storage import failures, files, flocks, remote

if TYPE_CHECKING:  # a session of one process does not need JAX
    from jdd.parallel.processes import Processes


@contextlib.contextmanager
def locked(directory: str | os.PathLike[str], waiting: Session | None = None) -> Iterator[None]:
    """Hold the directory's lock. If another run holds it, raise, or wait with ``waiting``.

    Of a copy of a URL the lock of the URL too, and what is written is pushed there. What killed
    processes have left half written is removed first.

    Raises:
      BadInput: the directory cannot be written, or another run holds the lock.
      StorageError: what was written could not be pushed, or the working directory is gone.
      Interrupted: a signal arrived while waiting.
    """
    path = Path(directory)
    divided = waiting is not None and waiting.divided
    if waiting is not None and divided and not waiting.first:
        waiting.gather()  # process 0 holds the lock for all
        yield
        return
    if waiting is not None:  # a store's lock: it may be in the working directory
        failures.present(waiting.workdir)
    try:
        path.mkdir(parents=True, exist_ok=True)
        handle: IO[str] = (path / files.LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise BadInput(
            str(directory), f"cannot be written ({error.strerror})", "a directory you may write"
        ) from error
    with handle:
        announced, mirror = False, remote.of(path)
        where = mirror.url if mirror else str(directory)
        while holder := _holder(handle, mirror):
            if waiting is None:
                allowed = mirror.remedy if mirror else "wait for it, or give another --workdir"
                raise BadInput(where, f"in use by {holder}", allowed)
            if not announced:
                waiting.say(f"{where} is in use by {holder}: waiting for it ...")
            announced = True
            waiting.check()
            time.sleep(1)
        handle.seek(0)
        handle.truncate()
        handle.write(f"process {os.getpid()}")
        handle.flush()
        files.remove_parts(path)
        if waiting is not None and divided:
            waiting.gather()
        with mirror.held() if mirror else contextlib.nullcontext():
            yield


def _holder(handle: IO[str], mirror: remote.Mirror | None) -> str:
    """Return who has the lock of a directory, or of the URL it is a copy of; '' for this run."""
    if not flocks.acquired(handle):
        handle.seek(0)
        return handle.read().strip() or "another process"
    return mirror.claim() if mirror else ""


_NONE = Options()
_LOOK = 2.0  # seconds after which it is looked again whether the working directory is there


class Session:
    """Services passed to every stage: metrics, stop requests and messages to the user."""

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        tensorboard: bool = False,
        progress: bool = True,
        out: IO[str] | None = None,
        wandb: bool = False,
        options: Options = _NONE,
        processes: Processes | None = None,
    ):
        self.workdir = Path(workdir)
        self.processes, self.divided = processes, False
        self.metrics = Metrics(self.workdir, tensorboard, wandb, self.first)
        self.progress = progress and self.first
        self.out = Output(out or sys.stdout)
        self.temporaries: dict[str, int] = {}
        self._waits: dict[str, list[tuple[float, float]]] = {}
        self._reported = (0.0, 0.0)  # the part already reported to the user
        self._options, self._deadline = options, Deadline(options)
        traced = options.profile if self.first else 0
        self.profile = Profile(self.workdir / "profile", traced, self.say)
        self._signal: int | None = None
        self._late, self._looked = False, time.monotonic()
        self._bars: list[Progress] = []
        if self.metrics.note:
            self.warn(self.metrics.note)

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Turn SIGINT, SIGTERM and SIGHUP into a request to save and stop.

        A second SIGINT stops at once: it is a person's. Schedulers repeat the others, which change
        nothing while the run saves.
        """

        def request(number: int, frame: FrameType | None) -> None:
            if self._signal is not None:
                if number == signal.SIGINT:
                    raise KeyboardInterrupt
                return
            self._signal = number
            # Not print: the signal may have interrupted one.
            line = b"\n" if any(bar.drawn for bar in self._bars) else b""
            with contextlib.suppress(OSError):
                os.write(2, line + b"stopping: saving first (Ctrl-C again to stop at once) ...\n")

        with signals.handled(request):
            try:
                yield
            finally:
                self.close_bars()
                self.profile.end()
                self.metrics.close()

    @property
    def stopping(self) -> bool:
        """Return whether a signal or the time limit asks to stop; read before every step.

        Raises:
          StorageError: the working directory is gone.
        """
        if (now := time.monotonic()) - self._looked >= _LOOK:
            self._looked = now
            failures.present(self.workdir)
        self._late = self._late or self._deadline.over()
        others = self.processes is not None and bool(self.processes.reason)
        return self._late or self._signal is not None or others

    @property
    def first(self) -> bool:
        """Return whether this process writes what is one: the only process, or process 0."""
        return self.processes is None or self.processes.first

    def mine(self, item: int) -> bool:
        """Return whether this process makes an item: each does, unless the stage is divided."""
        return not self.divided or self.processes is None or self.processes.mine(item)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Do one item of a divided stage: nothing inside is divided."""
        divided, self.divided = self.divided, False
        try:
            yield
        finally:
            self.divided = divided

    def gather(self, value: bytes = b"") -> list[bytes]:
        """Return the values of all processes; all of them call it, and wait for each other."""
        return [value] if self.processes is None else self.processes.gather(value, self.check)

    def agree(self, value: bool) -> bool:
        """Return the value of process 0."""
        return self.gather(b"1" if value else b"")[0] == b"1"

    def interrupted(self, at: str = "") -> JddError:
        """Return the error of a run that has saved and stops, ``at`` some step."""
        if self._signal is None and self.processes is not None and self.processes.reason:
            again = "the same commands go on from the last checkpoint"
            return PeerLost(f"{self.processes.reason}; {again}")
        why = f"interrupted{at and f' {at}'}"
        if self._late and self._signal is None:
            why = f"stopped{at and f' {at}'}, before --max-seconds={self._deadline.seconds:g} ends"
        again = self._options.again
        rest = f"to go on: {again}" if again else "the same command goes on from here"
        return Interrupted(f"{why}; {rest}")

    def check(self) -> None:
        """Raise Interrupted if the run is to stop; for stages with nothing left to save."""
        if self.stopping:
            raise self.interrupted()

    def wait(self, stage: str, waited: float, ran: float) -> None:
        """Record the seconds a stage's loop has waited for input, and the seconds it ran."""
        self._waits.setdefault(stage, []).append((waited, ran))

    def stall(self, *stages: str) -> dict[str, float]:
        """Return ``{"stall": fraction}`` over all recorded time; {} if none was recorded."""
        waited, ran = self._noted(stages)
        return {"stall": round(waited / ran, 4)} if ran > 0 else {}

    def _noted(self, stages: Sequence[str]) -> tuple[float, float]:
        noted = [times for stage in stages for times in self._waits.get(stage, [])]
        return sum(waited for waited, _ in noted), sum(ran for _, ran in noted)

    def waited(self) -> str:
        """Return as text the time waited for input since the last call; '' for none."""
        noted, reported = self._noted(list(self._waits)), self._reported
        waited, ran, self._reported = noted[0] - reported[0], noted[1] - reported[1], noted
        return f"waited {waited:.1f} s of {clock(ran)} for its input" if ran > 0 else ""

    def say(self, text: str) -> None:
        """Print one line for the user, unless the progress is off."""
        if self.progress:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Print one line for the user, also if the progress is off: of damage that was mended."""
        if any(bar.drawn for bar in self._bars):
            from tqdm import tqdm

            tqdm.write(text, file=self.out)  # above the bar, which is drawn again
            self.out.flush()
            return
        print(text, file=self.out, flush=True)

    def bar(self, total: int, label: str, start: int = 0) -> Progress:
        """Return the progress display of a stage of ``total`` units."""
        made = Progress(total, label, start, self.out, self.progress)
        self._bars = [*(bar for bar in self._bars if bar.drawn), made]
        return made

    def close_bars(self) -> None:
        """End the bars that an error or a signal has left, so that the next line is its own."""
        for bar in self._bars:
            bar.close()

    def paced(self, lo: int, hi: int, seconds: float = 2.0) -> Iterator[tuple[int, int]]:
        """Yield pieces of ``lo..hi`` of about ``seconds`` each, to react to signals in time.

        The caller must wait for its device work inside the loop body.
        """
        size, timed = 1, 0
        while lo < hi:
            self.check()
            self.profile.piece()
            started = time.perf_counter()
            to = min(hi, lo + size)
            yield lo, to
            spent = max(time.perf_counter() - started, 1e-6)
            if timed:  # the first piece includes the compilation
                size = max(1, min(size * 8, round(size * seconds / spent)))
            timed += 1
            lo = to
        self.check()


class Progress:
    """Progress display with the time left: a bar on a terminal, plain lines elsewhere."""

    def __init__(self, total: int, label: str, start: int, out: Output, enabled: bool):
        self.total, self.label, self.done = total, label, start
        self.out, self.enabled = out, enabled
        self.started = self.printed = time.perf_counter()
        self.timed: tuple[float, int] | None = None  # since when, and the units done by then
        self.bar: Any = None
        if enabled and out.isatty():
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=start, desc=label, file=out, dynamic_ncols=True)

    def update(self, done: int, note: str = "") -> None:
        """Show that ``done`` of ``total`` units are finished."""
        step, self.done = done - self.done, done
        if not self.enabled:
            return
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update(step)
            return
        now = time.perf_counter()
        if now - self.printed < 5.0 and done < self.total:
            return
        self.printed = now
        tail = f", {clock(now - self.started)}"
        if done < self.total:
            tail = ""
            if self.timed is None:  # the first units hold compilation: nothing follows from them
                self.timed = now, done
            elif done > self.timed[1]:
                pace = (now - self.timed[0]) / (done - self.timed[1])
                tail = f", {clock(pace * (self.total - done))} left"
        note = f"  {note}" if note else ""
        print(f"{self.label}: {done}/{self.total}{tail}{note}", file=self.out, flush=True)

    def close(self) -> None:
        """End the display."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    @property
    def drawn(self) -> bool:
        """Whether a bar is on the terminal now."""
        return self.bar is not None


def clock(seconds: float) -> str:
    """Return a human-readable duration: 42 s, 3 min 10 s, 2 h 05 min, 12 days 3 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 3 * 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    days, hours = divmod(round(whole / 3600), 24)
    return f"{days} days {hours} h"
