"""Two runs on one directory or one store, a clock that jumps, a directory that goes away.

    directory  a second run of the same directory, begun at a random moment: refused in one line
    store      two runs begun together that share an expert store and a cache: both right
    clock      the wall clock jumps by a day at every change of a file, a signal stops the run,
               the times of all files are changed by up to ten years, and it goes on
    gone       the working directory is moved away at a random change of a file: one line, soon;
               once it is moved back the same command goes on

Each ends with the bits of a run that was not disturbed. By hand, N of each:

    python -m tests.faults.test_shared N [SEED] [KIND...]
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import injected, tiny_runs

FEW, MANY = 1, 5
SOON = 10.0  # seconds within which a run without a directory ends
RUN = "mtt"
STORED = ("--config.experts.dir=store",)
# Many short steps with a checkpoint each, by steps and by time, and a limit that is never reached.
CLOCK = ("--config.checkpoint_every=1", "--config.checkpoint_minutes=0.001", "--max-seconds=3000")
# Nothing is logged or saved for hundreds of steps.
LONG = tuple(f"--config.{key}=400" for key in ("steps", "log_every", "checkpoint_every"))


class Tried(NamedTuple):
    """One trial: its kind, when and what, the line printed, and what differs in the end."""

    kind: str
    moment: str
    line: str
    difference: str


def directory(place: Path, whole: tiny_runs.Undisturbed, draw: random.Random) -> Tried:
    """Begin a second run of a directory while the first one runs."""
    folder = tiny_runs.folder(place / "run")
    first = tiny_runs.start(folder, whole.words, "none")
    while not (folder / "run/metrics.jsonl").exists():
        assert first.poll() is None, first.communicate()
        time.sleep(0.01)
    wait = draw.random() * whole.seconds / 4
    time.sleep(wait)
    second = tiny_runs.ended(tiny_runs.start(folder, whole.words, "none"), folder)
    assert first.poll() is None, "the first run has ended before the second one"
    line = _line(second, 2)
    assert f"in use by process {first.pid}" in line, line
    found = tiny_runs.ended(first, folder)
    assert (found.code, found.err) == (0, ""), found.err
    return Tried("directory", f"{wait:.2f} s after it began", line, _differs(whole, folder))


def store(place: Path, whole: tiny_runs.Undisturbed, draw: random.Random) -> Tried:
    """Begin two runs that share an expert store and a cache."""
    shared = {name: place / name for name in ("store", "cache")}
    folders = [tiny_runs.folder(place / name) for name in ("a", "b")]
    for name, target in shared.items():
        target.mkdir()
        for folder in folders:
            (folder / name).symlink_to(target)
    wait, children = draw.random() * 2, []
    for folder in folders:
        children.append(tiny_runs.start(folder, whole.words, "none"))
        time.sleep(wait)
    ends = [tiny_runs.ended(*pair) for pair in zip(children, folders, strict=True)]
    assert [(end.code, end.err) for end in ends] == [(0, "")] * 2, ends
    # The nets of the store and of the cache are trained by one of the runs, which has the lines
    # about them; the results of both have their figures.
    found = [_differs(whole, folder, without=("experts", "full")) for folder in folders]
    return Tried("store", f"{wait:.2f} s apart", "", "; ".join(filter(None, found)))


def clock(place: Path, whole: tiny_runs.Undisturbed, draw: random.Random) -> Tried:
    """Stop a run whose clock jumps, change the times of its files, and let it go on."""
    folder = tiny_runs.folder(place / "run")
    wait = draw.random() * whole.seconds
    child = tiny_runs.start(folder, whole.words, "clock", 1)
    while child.poll() is None and not (folder / "run").exists():
        time.sleep(0.01)
    time.sleep(wait)
    child.send_signal(signal.SIGTERM)
    found = tiny_runs.ended(child, folder)
    line = found.err.splitlines()[-1] if found.err else "it had ended"
    assert found.code in (0, 130), found.err
    for path in sorted(folder.rglob("*")):
        turned = time.time() + (draw.random() - 0.5) * 20 * 365 * 86_400
        os.utime(path, (turned, turned))
    found = tiny_runs.ended(tiny_runs.start(folder, whole.words, "clock", 1), folder)
    assert (found.code, found.err) == (0, ""), found.err
    return Tried("clock", f"stopped after {wait:.2f} s", line, _differs(whole, folder))


def gone(place: Path, whole: tiny_runs.Undisturbed, draw: random.Random) -> Tried:
    """Move the working directory away, and back once the run has ended."""
    folder, away = tiny_runs.folder(place / "run"), place / "run" / injected.AWAY
    begun = whole.moments.index("run/metrics.jsonl") + 1
    inside = [at for at, path in enumerate(whole.moments, 1) if path.startswith("run/")]
    at = draw.choice([at for at in inside if at > begun])
    moment = f"before change {at} of {len(whole.moments)}, of {whole.moments[at - 1]}"
    child = tiny_runs.start(folder, whole.words, "gone", at)
    while child.poll() is None and not away.exists():
        time.sleep(0.01)
    moved = time.monotonic()
    found = tiny_runs.ended(child, folder)
    took = time.monotonic() - moved
    line = _line(found, 5)
    assert "deleted or moved" in line, line
    assert not (folder / "run").exists(), f"{moment}: made anew, {list((folder / 'run').iterdir())}"
    assert took < SOON, f"{moment}: noticed after {took:.1f} s"
    away.rename(folder / "run")
    return Tried(
        "gone", f"{moment}, noticed after {took:.1f} s", line, tiny_runs.again(folder, whole)
    )


def _line(found: tiny_runs.Ended, code: int) -> str:
    """Return the one line of a command that ended with an exit code."""
    assert found.code == code and found.err.count("\n") == 1, f"{found.code}: {found.err}"
    assert found.err.startswith("jdd: error: "), found.err
    return found.err.removeprefix("jdd: error: ").rstrip("\n")


def _differs(whole: tiny_runs.Undisturbed, folder: Path, without: tuple[str, ...] = ()) -> str:
    """Return what a run that has ended leaves otherwise; ``without``: but for lines of stages."""
    pair = [dict(whole.left), tiny_runs.traces(folder / "run")]
    for one in pair if without else []:
        one["rows"] = {k: row for k, row in one["rows"].items() if not k.startswith(without)}
        one["bits"] = {k: bits for k, bits in one["bits"].items() if k != "config.json"}
        one["files"] = [name for name in one["files"] if name != "checkpoints/full.json"]
        one["figures"] = {k: v for k, v in one["figures"].items() if k != "full.json"}
    return tiny_runs.difference(*pair)


Trial = Callable[[Path, tiny_runs.Undisturbed, random.Random], Tried]
KINDS: dict[str, tuple[Trial, Sequence[str]]] = {
    "directory": (directory, ()),
    "store": (store, STORED),
    "clock": (clock, CLOCK),
    "gone": (gone, LONG),
}


def survey(place: Path, kind: str, count: int, seed: int) -> Iterator[Tried]:
    """Yield what came of so many trials of a kind."""
    trial, more = KINDS[kind]
    whole = tiny_runs.undisturbed(place / "whole" / kind, RUN, more)
    for number in range(count):
        with tempfile.TemporaryDirectory(dir=place) as own:
            yield trial(Path(own), whole, random.Random(f"{kind} {seed} {number}"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_shared_or_moved_run_ends_as_an_undisturbed_one(kind: str, tmp_path: Path) -> None:
    found = list(survey(tmp_path, kind, FEW, 0))
    assert len(found) == FEW
    assert [tried for tried in found if tried.difference] == []


def main(words: Sequence[str]) -> None:
    """Try each kind, print a line each and the counts."""
    count, seed = ([int(word) for word in words[:2]] + [MANY, 0][len(words[:2]) :])[:2]
    for kind in words[2:] or KINDS:
        equal = 0
        with tempfile.TemporaryDirectory() as scratch:
            for tried in survey(Path(scratch), kind, count, seed):
                equal += not tried.difference
                print(f"{kind:10} {tried.moment}: {tried.line}", flush=True)
                print(f"{'':10} in the end: {tried.difference or 'equal'}", flush=True)
        print(f"{kind}: {equal} of {count} bit-equal, seed {seed}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
