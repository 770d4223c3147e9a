"""A disk that fills at a random moment: one line, exit code 5, and nothing is lost.

Tiny runs of methods with experts, with teachers and stored labels, and of a generator with its
quality. From a random change of a file on, no file takes a byte (``injected``); the moment is drawn
among those of one kind of output. With room again the same command ends with the bits of a run that
was not disturbed. By hand, with N fills:

    python -m tests.faults.test_full_disk N [SEED]
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults import tiny_runs

FEW, MANY = 3, 20
# Kinds of outputs: the run that makes them, and whether a path is one of them.
KINDS: dict[str, tuple[str, Callable[[str], bool]]] = {
    "experts": ("mtt", lambda path: path.startswith("run/experts/")),
    "checkpoints": ("mtt", lambda path: path.startswith("run/checkpoints/distill/")),
    "teachers": ("sre2l", lambda path: path.startswith("run/squeeze/")),
    "labels": ("sre2l", lambda path: path.startswith("run/labels/")),
    "parts": ("sre2l", lambda path: path.startswith("run/checkpoints/recover")),
    "results": ("mtt", lambda path: path.rpartition("/")[0] == "run" and _named(path)),
    "cache": ("gaussian", lambda path: path.startswith("cache/")),
    "figures": ("gaussian", lambda path: path.startswith("run/checkpoints/")),
}


def _named(path: str) -> bool:
    return any(word in path for word in ("distilled", "result", "report", "metrics"))


class Fill(NamedTuple):
    """One fill: the kind of file, the moment, the line printed, and what differs in the end."""

    kind: str
    moment: str
    line: str
    difference: str


def filled(place: Path, kind: str, whole: tiny_runs.Undisturbed, draw: random.Random) -> Fill:
    """Fill the disk at a moment of a kind; give the command again with room.

    Raises:
      AssertionError: the command ends otherwise than in one line with exit code 5.
    """
    ours = [at for at, path in enumerate(whole.moments, 1) if KINDS[kind][1](path)]
    at = draw.choice(ours)
    moment = f"from change {at} of {len(whole.moments)} on, of {whole.moments[at - 1]}"
    folder = tiny_runs.folder(place / f"{kind}-{at}")
    found = tiny_runs.ended(tiny_runs.start(folder, whole.words, "full", at), folder)
    line = found.err.removeprefix("jdd: error: ").rstrip("\n")
    assert found.code == 5 and "cannot be written" in line and "\n" not in line, (
        f"{kind}, {moment}: exit code {found.code}\n{found.err}"
    )
    return Fill(kind, moment, line, tiny_runs.again(folder, whole))


def survey(place: Path, count: int, seed: int) -> Iterator[Fill]:
    """Yield what came of so many fills, of the kinds in turn."""
    known: dict[str, tiny_runs.Undisturbed] = {}
    order = random.Random(seed).sample(list(KINDS), len(KINDS))
    for number in range(count):
        kind = order[number % len(order)]
        name = KINDS[kind][0]
        if name not in known:
            known[name] = tiny_runs.undisturbed(place / "whole" / name, name)
        with tempfile.TemporaryDirectory(dir=place) as own:
            yield filled(Path(own), kind, known[name], random.Random(f"{seed} {number}"))


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path) -> None:
    found = list(survey(tmp_path, FEW, 0))
    assert len(found) == FEW
    assert [fill for fill in found if fill.difference] == []


def main(words: Sequence[str]) -> None:
    """Fill the disk of runs, print a line each and the counts."""
    count, seed = ([int(word) for word in words] + [MANY, 0][len(words) :])[:2]
    print(f"{count} full disks, seed {seed}", flush=True)
    equal = 0
    with tempfile.TemporaryDirectory() as scratch:
        for fill in survey(Path(scratch), count, seed):
            equal += not fill.difference
            print(f"{fill.kind:12} {fill.moment}: {fill.line}", flush=True)
            print(f"{'':12} with room again: {fill.difference or 'equal'}", flush=True)
    print(f"{equal} of {count}: one line, exit code 5, then bit-equal", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
