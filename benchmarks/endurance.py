"""Does a long run stay as it was after its warm-up: memory, open files, compiled programs?

    python -m benchmarks.endurance --to=endurance.jsonl --plot=endurance.svg -- \\
        --config=dc:cifar10,ipc=1 --config.eval.curve=20 --workdir=runs/long --max-seconds=3600
    python -m benchmarks.endurance --to=endurance.jsonl --plot=endurance.svg     # draws again

Runs ``python -m jdd.main`` with the words after ``--`` and, every ``--every`` seconds, appends to
``--to`` a line of JSON: resident bytes, open file descriptors and threads (/proc: Linux only).
Further lines are compilations, one each, from JAX's log (JAX_LOG_COMPILES, taken out of the run's
stderr; a program of the persistent cache counts too), and new lines of the run's metrics.jsonl. An
interrupted run leaves its samples; the same command appends another part, as jdd resumes.

The warm-up of a part ends with its first evaluation after a step of the run: a point of the
accuracy curve past step 0, or one of the evaluate stage. From there to the last line of training
the run is steady; what the last evaluation compiles comes later. Prints a table of parts, then the
programs that were compiled in steady parts. The plot needs matplotlib: pip install 'jdd[bench]'.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

Row = dict[str, Any]
TICK = 0.25  # seconds between looks at metrics.jsonl
MB = 1e6
FINISHED = re.compile(r"Finished XLA compilation of (.+) in ([-+.\de]+) sec")
# What JAX_LOG_COMPILES adds to stderr, with or without the prefix of absl's logging.
NOISE = re.compile(
    r"^(?:\w+:\S*:)?(?:Finished (?:tracing|jaxpr to MLIR|XLA compilation)|Compiling \S+ with global"
    r"|[Pp]ersistent compilation cache)"
)
EVALUATIONS = ("curve", "evaluate")
HEAD = (
    "| part | hours | evaluations | memory first, MB | last, MB | most, MB | slope, MB/h "
    "| open files | threads | compiled in warm-up | steady | after |"
)


class Log(contextlib.AbstractContextManager["Log"]):
    """Appends rows to a file of JSON lines, each with its part and the seconds since its start."""

    def __init__(self, path: Path, part: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file, self._part = path.open("a", encoding="utf-8"), part
        self._file.write("\n")  # the last part may have ended within a line
        self._began, self._lock = time.monotonic(), threading.Lock()

    def add(self, **row: Any) -> None:
        seconds = round(time.monotonic() - self._began, 3)
        with self._lock:
            self._file.write(json.dumps({"part": self._part, "seconds": seconds, **row}) + "\n")
            self._file.flush()

    def __exit__(self, *_: object) -> None:
        self._file.close()


def sample(pid: int) -> Row:
    """Return resident bytes, open files and threads of a process; empty when it has ended."""
    place = Path(f"/proc/{pid}")
    try:
        resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found = re.search(r"^Threads:\s+(\d+)", (place / "status").read_text(), re.MULTILINE)
        files = len(os.listdir(place / "fd"))
    except OSError:
        return {}
    return {"resident": resident, "files": files, "threads": int(found[1])} if found else {}


def steps(path: Path) -> dict[str, set[int]]:
    """Return the steps that each stage has lines of, in a metrics.jsonl."""
    found: dict[str, set[int]] = {}
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return found
    for line in lines:
        try:
            row = json.loads(line)
            found.setdefault(row["stage"], set()).add(row["step"])
        except (ValueError, KeyError, TypeError):
            continue  # the last line, which is being written
    return found


def _listen(stream: TextIO, log: Log) -> None:
    """Log the compilations that a run's stderr names, and show its other lines."""
    for line in stream:
        if done := FINISHED.search(line):
            log.add(compiled=done[1], took=float(done[2]))
        if not NOISE.match(line):
            sys.stderr.write(line)
            sys.stderr.flush()


def _workdir(words: list[str]) -> Path:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word.startswith("--workdir"):
            return Path(word.partition("=")[2] or following)
    sys.exit("endurance: --workdir is missing: give jdd's words, with --workdir=DIR, after --")


def watch(words: list[str], to: Path, every: float) -> int:
    """Run jdd with ``words``, appending a part to ``to``; return its exit code."""
    metrics = _workdir(words) / "metrics.jsonl"
    known, stamp = steps(metrics), None
    child = subprocess.Popen(
        [sys.executable, "-m", "jdd.main", *words],
        env=os.environ | {"JAX_LOG_COMPILES": "1"},
        stderr=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    # The run saves and ends; a terminal sends Ctrl-C to both processes.
    signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: child.send_signal(number))
    assert child.stderr is not None
    with Log(to, 1 + max((row["part"] for row in read(to)), default=0)) as log:
        listener = threading.Thread(target=_listen, args=(child.stderr, log), daemon=True)
        listener.start()
        due = time.monotonic()
        while child.poll() is None:
            if time.monotonic() >= due:
                due += every
                if found := sample(child.pid):
                    log.add(**found)
            if (new := _stamp(metrics)) != stamp:
                stamp, known = new, _note(log, known, steps(metrics))
            time.sleep(min(TICK, every))
        listener.join()
        _note(log, known, steps(metrics))
        log.add(exit=child.returncode)
    return child.returncode


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def _note(log: Log, known: dict[str, set[int]], now: dict[str, set[int]]) -> dict[str, set[int]]:
    lines = {stage: max(new) for stage, of in now.items() if (new := of - known.get(stage, set()))}
    if lines:
        log.add(lines=lines)
    return now


def read(path: Path) -> list[Row]:
    """Return the rows of a log; none if there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue  # cut short by the end of an earlier part
    return rows


class Part(NamedTuple):
    """A part of a run: from ``warm`` to ``last`` seconds it is steady; None: it never was."""

    rows: list[Row]
    warm: float | None
    last: float

    def steady(self, key: str) -> list[Row]:
        """Return the rows with ``key`` from the end of the warm-up to the last training line."""
        warm = float("inf") if self.warm is None else self.warm
        return [row for row in self.rows if key in row and warm < row["seconds"] <= self.last]

    @property
    def evaluations(self) -> list[float]:
        """When evaluations ended, in seconds."""
        return [r["seconds"] for r in self.rows if any(map(_evaluates, r.get("lines", ())))]


def _evaluates(stage: str) -> bool:
    return stage.startswith(EVALUATIONS)


def parts(rows: list[Row]) -> list[Part]:
    """Return the parts of a log, in order, each with the span in which it was steady."""
    found = []
    for number in sorted({row["part"] for row in rows}):
        own = [row for row in rows if row["part"] == number]
        stepped, warm, last = False, None, 0.0
        for row in own:
            lines = row.get("lines", {})
            if any(not _evaluates(stage) for stage in lines):
                stepped, last = True, row["seconds"]
            past = any(s.startswith("curve") and step > 0 for s, step in lines.items())
            if warm is None and (stepped and past or any(s.startswith("evaluate") for s in lines)):
                warm = row["seconds"]
        found.append(Part(own, warm, last))
    return found


def slope(samples: list[Row]) -> float | None:
    """Return the growth of resident memory in MB an hour, by least squares; None of under 3."""
    if len(samples) < 3:
        return None
    hours = np.array([row["seconds"] / 3600 for row in samples])
    return float(np.polyfit(hours, [row["resident"] / MB for row in samples], 1)[0])


def summary(rows: list[Row]) -> str:
    """Return a Markdown table of the parts of a log, and what steady parts compiled."""
    lines = [HEAD, "|--:" * HEAD.count(" | ") + "|--:|"]
    names: Counter[str] = Counter()
    for number, part in enumerate(parts(rows), 1):
        compiled = [row for row in part.rows if "compiled" in row]
        steady = part.steady("compiled")
        names.update(row["compiled"] for row in steady)
        after = [row for row in compiled if part.warm is not None and row["seconds"] > part.last]
        samples = part.steady("resident")
        memory = [row["resident"] / MB for row in samples]
        grows = slope(samples)
        cells = [
            str(number),
            f"{max(row['seconds'] for row in part.rows) / 3600:.2f}",
            str(len(part.evaluations)),
            *([f"{m:.0f}" for m in (memory[0], memory[-1], max(memory))] if memory else "---"),
            "-" if grows is None else f"{grows:+.1f}",
            _span([row["files"] for row in samples]),
            _span([row["threads"] for row in samples]),
            str(len(compiled) - len(steady) - len(after)),
            str(len(steady)),
            str(len(after)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    listed = ", ".join(f"{name} x{n}" for name, n in names.most_common()) or "none"
    return "\n".join([*lines, f"Compiled while steady: {listed}"])


def _span(values: list[int]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def draw(rows: list[Row], path: Path) -> None:
    """Draw memory, open files and compilations over time, with a mark at each evaluation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(7, 5.5), height_ratios=(3, 1, 1))
    start = 0.0
    for number, part in enumerate(parts(rows), 1):
        samples = [row for row in part.rows if "resident" in row]
        compiled = [row for row in part.rows if "compiled" in row]
        minutes = [(start + row["seconds"]) / 60 for row in samples]
        axes[0].plot(minutes, [row["resident"] / MB for row in samples], "C0", lw=1)
        axes[1].plot(minutes, [row["files"] for row in samples], "C1", lw=1)
        counted = [sum(c["seconds"] <= row["seconds"] for c in compiled) for row in samples]
        axes[2].plot(minutes, counted, "C2", lw=1)
        for axis in axes:
            for when in part.evaluations:
                axis.axvline((start + when) / 60, color="grey", lw=0.4, alpha=0.6)
            if number > 1:
                axis.axvline(start / 60, color="black", lw=0.8)
            if part.warm is not None:
                axis.axvspan(start / 60, (start + part.warm) / 60, color="grey", alpha=0.15, lw=0)
        start += max(row["seconds"] for row in part.rows)
    for axis, words in zip(axes, ("resident, MB", "open files", "compilations"), strict=True):
        axis.set_ylabel(words)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0].set_title("Lines: evaluations; shaded: warm-up", fontsize=9)
    axes[2].set_xlabel("minutes")
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
    print(path)


def main(argv: list[str] | None = None) -> int:
    """Watch a run, if one is given; then print the summary and draw."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    own, run = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--to", type=Path, required=True, help="file of samples, appended to")
    parser.add_argument("--plot", type=Path, help="plot to draw: .svg, .png")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples")
    flags = parser.parse_args(own)
    if not Path("/proc/self/statm").exists():
        sys.exit("endurance: samples come from /proc, which only Linux has")
    code = watch(run, flags.to, flags.every) if run else 0
    rows = read(flags.to)
    if not rows:
        sys.exit(f"endurance: {flags.to} holds no samples: give jdd's words after --")
    print(summary(rows))
    if flags.plot:
        draw(rows, flags.plot)
    return code


if __name__ == "__main__":
    sys.exit(main())
