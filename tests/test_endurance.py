"""The program that watches a long run: its spans and figures, and a short run under it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import endurance

ROOT = Path(endurance.__file__).parents[1]
# A curve past step 0 comes after the first lines of training: the warm-up ends there, at 40 s.
LINES: dict[int, dict[str, int]] = {
    10: {"experts": 1}, 20: {"curve": 0}, 30: {"distill": 5}, 40: {"curve": 5},
    100: {"distill": 10}, 110: {"curve": 10, "evaluate": 1},
}  # fmt: skip


def rows(leak: float) -> list[dict[str, Any]]:
    """Return a part whose memory grows by ``leak`` MB an hour after its warm-up."""
    memory = [
        {"seconds": s, "resident": 1e6 * (s if s <= 40 else 300 + leak * s / 3600), "files": 6}
        for s in range(1, 120)
    ]
    lines = [{"seconds": s, "lines": found} for s, found in LINES.items()]
    compiled = [{"seconds": s, "compiled": "jit(f)", "took": 0.1} for s in (5, 35, 60, 105)]
    found = sorted([*memory, *lines, *compiled], key=lambda row: float(str(row["seconds"])))
    return [{"part": 1, "threads": 9, **row} for row in found]


def test_a_part_is_steady_from_its_first_evaluation_after_a_step_to_its_last_line() -> None:
    (part,) = endurance.parts(rows(leak=36.0))
    assert (part.warm, part.last) == (40, 100)
    assert part.evaluations == [20, 40, 110]
    assert [row["seconds"] for row in part.steady("compiled")] == [60]
    assert endurance.slope(part.steady("resident")) == pytest.approx(36.0)
    shown = endurance.summary(rows(leak=0.0))
    assert "| 300 | 300 | 300 | +0.0 | 6 | 9 | 2 | 1 | 1 |" in shown
    assert "Compiled while steady: jit(f) x1" in shown


def test_a_line_that_was_cut_is_left_out_and_the_next_part_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"part": 1, "seconds": 1}\n{"part": 1, "sec')
    with endurance.Log(path, 2) as log:
        log.add(exit=0)
    found = endurance.read(path)
    assert [row["part"] for row in found] == [1, 2]


@pytest.mark.slow  # a whole run, and a part that finds it finished
def test_a_run_is_watched_to_its_end_and_a_second_part_is_appended(tmp_path: Path) -> None:
    to, plot = tmp_path / "log.jsonl", tmp_path / "plot.svg"
    run = [
        "--config=dm:digits,ipc=1", "--config.steps=40", "--config.eval.curve=4",
        "--config.eval.epochs=20", "--config.eval.n=1", "--config.baselines.random=0",
        "--config.baselines.full=false", "--config.net.width=8", f"--workdir={tmp_path / 'run'}",
    ]  # fmt: skip
    program = [sys.executable, "-m", "benchmarks.endurance", f"--to={to}", "--every=0.2"]
    done = subprocess.run(
        [*program, f"--plot={plot}", "--", *run], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "Compiled while steady: none" in done.stdout
    assert "XLA compilation" not in done.stderr and "distill" in done.stderr + done.stdout
    assert plot.read_text().startswith("<?xml")
    (part,) = endurance.parts(endurance.read(to))
    assert part.warm is not None and len(part.evaluations) >= 4
    assert sum("compiled" in row for row in part.rows) > 20
    memory = [row["resident"] for row in part.steady("resident")]
    assert len(memory) > 3 and max(memory) < 2 * min(memory)

    again = subprocess.run([*program, "--", *run], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    last = endurance.read(to)[-1]
    assert (last["part"], last["exit"]) == (2, 0)
