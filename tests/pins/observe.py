"""Runs pinned cases in this process and writes down what they leave. Started by ``pins.observe``.

    python -m tests.pins.observe ROOT NAME...

The case ``mtt`` runs in ``ROOT/mtt``. ``mtt@halfway`` goes on from ``halfway/mtt.zip``. What
either leaves is written to ``ROOT/NAME/left.json`` and ``floats.npz``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import traceback
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tests.pins import cases, left

HALFWAY = Path(__file__).parent / "halfway"
STOPPED = "@halfway"


@contextlib.contextmanager
def purposes() -> Iterator[set[str]]:
    """Note the purposes of all randomness that is drawn inside the block."""
    from jdd import rng

    found: set[str] = set()
    before = rng.stream, rng.host

    def stream(seed: int, purpose: str) -> Any:
        found.add(purpose)
        return before[0](seed, purpose)

    def host(seed: int, purpose: str, step: int = 0) -> Any:
        found.add(purpose)
        return before[1](seed, purpose, step)

    rng.stream, rng.host = stream, host
    try:
        yield found
    finally:
        rng.stream, rng.host = before


def run(folder: Path, name: str) -> None:
    """Run a case's commands in ``folder``; a run that is there already goes on.

    Raises:
      RuntimeError: a command failed; with what it has printed.
    """
    from jdd import main

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    cases.toy(Path("toy.npz"))
    for argv in cases.commands(name):
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = main.main(argv)
        if code:
            raise RuntimeError(f"{' '.join(argv)}: exit code {code}\n{said.getvalue()}")


def observe(root: Path, job: str) -> dict[str, Any]:
    """Run one job and return what it leaves; ``failed`` holds the traceback of one that broke."""
    folder = root / job
    name = job.removesuffix(STOPPED)
    before: dict[str, Any] = {}
    if job.endswith(STOPPED):
        with zipfile.ZipFile(HALFWAY / f"{name}.zip") as archive:
            archive.extractall(folder / cases.WORKDIR)
        before = state(folder / cases.WORKDIR)
    try:
        with purposes() as drawn:
            run(folder, name)
        found = left.read(folder / cases.WORKDIR)
    except Exception:
        return {"failed": traceback.format_exc()}
    finally:
        os.chdir(root)
    found.same["purposes"] = sorted(drawn)
    np.savez(folder / "floats.npz", **found.floats)  # type: ignore[arg-type]
    after = state(folder / cases.WORKDIR) if before else {}
    return {"same": found.same, "exact": found.exact, "before": before, "after": after}


def state(workdir: Path) -> dict[str, Any]:
    """Return the lines of the metrics and when each stored array was written, for a resumed run."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    items = (path for path in workdir.rglob("*") if path.name in ("_METADATA", "0.npy"))
    return {
        "metrics": lines,
        "written": {p.relative_to(workdir).as_posix(): p.stat().st_mtime_ns for p in items},
    }


def main(root: Path, jobs: list[str]) -> None:
    """Run the jobs one after another."""
    for job in jobs:
        shutil.rmtree(root / job, ignore_errors=True)
        found = observe(root, job)
        (root / job).mkdir(parents=True, exist_ok=True)
        (root / job / "left.json").write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute(), sys.argv[2:])
