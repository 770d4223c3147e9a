"""Any file that a run leaves, cut or with a flipped bit: the run ends as an undisturbed one, or in
one line that names it. Never another result.

Of one small run each of images matched by their means, of trajectories with experts, and of
recovered images with teachers and stored labels; of pairs, generators, every mode of labels and the
protocol too. ``half`` is stopped in the middle, ``whole`` is finished; the same command is given
again after the damage. By hand, with N files a case or every file, and a table:

    python -m tests.faults.test_damage [N [CASE...]]

Not damaged are pages and pictures, which are never read. What was not made by jdd: test_foreign.py.
"""

from __future__ import annotations

import collections
import contextlib
import io
import os
import random
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jdd import main
from jdd.storage import json_files, npz_files
from tests.faults import tiny_runs
from tests.pins import cases

CASES = ("dm", "mtt", "sre2l")
PAIRS = ("vl", "lors", "covmatch")
GENERATORS = ("gan", "dim", "vae", "gaussian")
LABELS = ("gvbsm", "labels-static", "labels-map", "protocol")
EVERY = (*CASES, *PAIRS, *GENERATORS, *LABELS)
HOW = ("flip", "cut")
UNREAD = (".png", ".html")
NAMED = ("goes on from step", "damaged", "unreadable", "is made again", "trained again", "left out")
OUTCOMES = {
    "equal", "equal, with a line", "one line", "one line, and as it says: equal",
}  # fmt: skip
FEW, FEWER = 10, 4  # damaged files of a case in a test
# Of a result: what was measured.
FIGURES = (
    "accuracy", "metrics", "baselines", "baselines_by_net", "teachers", "scores", "quality",
    "protocol",
)  # fmt: skip


def call(folder: Path, case: str, mode: str = "all", **keys: Any) -> tuple[int, str, str]:
    """Give a case's command in ``folder``; return exit code, stdout and stderr."""
    spec, own = tiny_runs.keys(case)
    own |= {"runs": 1} | ({"baselines.full": False} if "baselines.full" in own else {}) | keys
    argv = [f"--config={spec}", "--workdir=run", f"--mode={mode}"]
    argv += [f"--config.{key}={value}" for key, value in own.items()]
    out, err, before = io.StringIO(), io.StringIO(), Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.main(argv)
    finally:
        os.chdir(before)
    return code, out.getvalue(), err.getvalue()


def figures(run: Path) -> dict[str, Any]:
    """Return all that a run has found: the set's arrays as bytes, the figures of its result."""
    arrays = npz_files.read(run / "distilled.npz", "")
    result = json_files.read(run / "result.json", "")
    named = {name: array.tobytes() for name, array in arrays.items() if name != "recipe"}
    return named | tiny_runs.timeless({name: result.get(name) for name in FIGURES})


def originals(place: Path, case: str) -> dict[str, Path]:
    """Make the stopped and the finished run of a case; return their folders."""
    found = {name: place / name for name in ("half", "whole")}
    for folder in found.values():
        folder.mkdir()
        cases.toy(folder / "toy.npz")
    assert call(found["whole"], case)[0] == 0
    if case in ("dm", "mtt"):
        for mode in cases.CASES[case].modes:
            assert call(found["half"], case, mode, steps=2)[0] == 0
        return found
    # What the set is made from is there, the set and its evaluation are not.
    shutil.copytree(found["whole"] / "run", found["half"] / "run")
    for name in ("distilled.npz", "result.json", "report.html", "checkpoints/evaluate.json"):
        (found["half"] / "run" / name).unlink()
    return found


def stored(run: Path) -> Iterator[Path]:
    """Yield the files of a run that are read again, by their paths in it."""
    for path in sorted(run.rglob("*")):
        if path.is_file() and path.stat().st_size and path.suffix not in UNREAD:
            if path.name != ".lock":
                yield path.relative_to(run)


def damage(path: Path, how: str, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    at = draw.randrange(len(data))
    if how == "cut":
        del data[at:]
    else:
        data[at] ^= 1 << draw.randrange(8)
    path.write_bytes(bytes(data))


def outcome(folder: Path, case: str, file: Path, how: str, wanted: dict[str, Any]) -> str:
    """Damage a file of a copy and give the command again; return what came of it.

    Raises:
      AssertionError: another result, a traceback, or more than a line.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        shutil.copytree(folder, copy)
        damage(copy / "run" / file, how, random.Random(f"{case} {folder.name} {file.suffix} {how}"))
        code, out, err = call(copy, case)
        if code:
            assert code == 2 and err.startswith("jdd: error: ") and err.count("\n") == 1, err
            return _remedied(copy, case, err, wanted)
        assert err == "", err
        assert figures(copy / "run") == wanted, f"other figures\n{out}"
        return "equal, with a line" if any(words in out for words in NAMED) else "equal"


def _remedied(copy: Path, case: str, line: str, wanted: dict[str, Any]) -> str:
    """Delete what a line says to delete, and give the command again."""
    where, _, rest = line.removeprefix("jdd: error: ").partition(": ")
    remedy = re.search(r"delete ([^\s,;]+)", rest)
    if remedy is None:
        return "one line"
    path = copy / (where if remedy[1].rstrip(":") == "it" else remedy[1])
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    code, _, err = call(copy, case)
    assert code == 0, f"after {line.strip()}\n{err}"
    assert figures(copy / "run") == wanted, f"other figures after {line.strip()}"
    return "one line, and as it says: equal"


def survey(place: Path, case: str, count: int) -> dict[str, collections.Counter[str]]:
    """Return what came of damaged files of a case, by the kind of file; ``count`` 0: of all."""
    found = originals(place, case)
    wanted = figures(found["whole"] / "run")
    jobs = [
        (folder, file, how)
        for folder in found.values()
        for file in stored(folder / "run")
        for how in HOW
    ]
    table = collections.defaultdict[str, collections.Counter[str]](collections.Counter)
    for folder, file, how in random.Random(case).sample(jobs, count or len(jobs)):
        try:
            table[kind(file)][outcome(folder, case, file, how, wanted)] += 1
        except Exception as error:
            raise AssertionError(f"{case}, {folder.name}, {file}, {how}: {error}") from error
    return dict(table)


def kind(file: Path) -> str:
    """Return the kind of a file, in words."""
    if file.name in (".digests", ".metrics.sums"):
        return "digests"
    if "experts" in file.parts or "squeeze" in file.parts:
        return "stored nets" if file.suffix != ".json" else "settings of a store"
    if "labels" in file.parts:
        return "stored labels"
    if file.suffix == "" or any(part.isdigit() for part in file.parts):
        return "checkpoints"
    return file.name if file.suffix != ".npy" else "finished parts"


def test_the_older_checkpoint_leads_to_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "cache"))
    for name in ("whole", "damaged"):
        (tmp_path / name).mkdir()
        cases.toy(tmp_path / name / "toy.npz")
    assert call(tmp_path / "whole", "dm", "distill", steps=6)[0] == 0
    assert call(tmp_path / "damaged", "dm", "distill", steps=4)[0] == 0
    run = tmp_path / "damaged/run"
    for file in (run / "checkpoints/distill/4").rglob("d/*"):
        if file.is_file():
            damage(file, "flip", random.Random(1))
    code, out, err = call(tmp_path / "damaged", "dm", "distill", steps=6)
    assert code == 0 and err == "" and out.count("goes on from step 2") == 1
    sets = [npz_files.read(tmp_path / n / "run/distilled.npz", "") for n in ("whole", "damaged")]
    for name in ("images", "labels"):
        assert sets[0][name].tobytes() == sets[1][name].tobytes()


@pytest.mark.slow
@pytest.mark.parametrize("case", EVERY)
def test_damage_is_never_another_result(case, tmp_path, monkeypatch):
    monkeypatch.setenv("JDD_CACHE", str(tmp_path / "cache"))
    count = FEW if case in CASES else FEWER
    found = sum(survey(tmp_path, case, count).values(), collections.Counter[str]())
    assert found.total() == count and set(found) <= OUTCOMES


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    for one in sys.argv[2:] or EVERY:
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["JDD_CACHE"] = f"{scratch}/cache"
            for name, row in sorted(survey(Path(scratch), one, count).items()):
                print(f"{one:8} {name:24}", dict(row), flush=True)
