"""``kill -9`` at random moments over all methods and stages: started again, every run ends with the
bits of one that was not disturbed.

A method's tiny run is made once without a fault. Then it is killed, in turn after a random part of
its time and before a random change of a file (``injected``), and the same command is given again.
Compared are all arrays, metrics, figures and files, without times. By hand, with N kills:

    python -m tests.faults.test_kills N [SEED] [RUN...]
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import tiny_runs

FEW, MANY = 3, 20  # kills in the slow suite, and by hand
_ATTEMPTS = 8


class Kill(NamedTuple):
    """One kill: of which run, at which moment, and what then differs; '' for equal bits."""

    name: str
    moment: str
    difference: str


def rotated(count: int, seed: int, names: Sequence[str] = tiny_runs.NAMES) -> list[str]:
    """Return the runs of ``count`` kills: all of them in a random order, and again."""
    order = random.Random(seed).sample(names, len(names))
    return [order[i % len(order)] for i in range(count)]


def killed(
    place: Path, name: str, whole: tiny_runs.Undisturbed, by_time: bool, share: float
) -> Kill:
    """Kill a run after a ``share`` of its time, or of its changes of files; start it again.

    A run that ends before, since its programs are compiled by now, is made anew and killed after
    half the share.
    """
    for attempt in range(_ATTEMPTS):
        folder = tiny_runs.folder(place / f"{name}-{attempt}")
        seconds, at = share * whole.seconds, 1 + int(share * len(whole.moments))
        if by_time:
            moment = f"{seconds:.2f} s after it began to write"
            child = tiny_runs.start(folder, whole.words, "none")
            found = tiny_runs.ended(child, folder, seconds)
        else:
            moment = f"before change {at} of {len(whole.moments)}, of {whole.moments[at - 1]}"
            found = tiny_runs.ended(tiny_runs.start(folder, whole.words, "kill", at), folder)
        if found.code == -signal.SIGKILL:
            return Kill(name, moment, tiny_runs.again(folder, whole))
        assert found.code == 0, f"{name}, {moment}: exit code {found.code}, {found.err}"
        share /= 2
    raise AssertionError(f"{name} ended {_ATTEMPTS} times before it was to be killed")


def survey(place: Path, names: Sequence[str], seed: int) -> Iterator[Kill]:
    """Yield what came of one kill each of these runs, in turn by time and by changes of files."""
    known: dict[str, tiny_runs.Undisturbed] = {}
    for number, name in enumerate(names):
        share = random.Random(f"{seed} {number}").random()
        if name not in known:
            known[name] = tiny_runs.undisturbed(place / "whole" / name, name)
        with tempfile.TemporaryDirectory(dir=place) as own:
            yield killed(Path(own), name, known[name], number % 2 == 0, share)


@pytest.mark.slow
def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path) -> None:
    found = list(survey(tmp_path, rotated(FEW, 0), 0))
    assert len(found) == FEW
    assert [kill for kill in found if kill.difference] == []


def main(words: Sequence[str]) -> None:
    """Kill runs, print a line each and the counts."""
    count = int(words[0]) if words else MANY
    seed = int(words[1]) if len(words) > 1 else 0
    names = rotated(count, seed, words[2:] or tiny_runs.NAMES)
    print(f"{count} kills, seed {seed}", flush=True)
    equal = 0
    with tempfile.TemporaryDirectory() as scratch:
        for kill in survey(Path(scratch), names, seed):
            equal += not kill.difference
            print(f"{kill.name:14} {kill.moment}: {kill.difference or 'equal'}", flush=True)
    print(f"{equal} of {count} bit-equal", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
