"""Stopping and going on: within 30 seconds, by time, under a scheduler; and traces of steps."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdd
from jdd import config, main
from jdd.product.distilled_set import DistilledSet
from jdd.run import loop, profile
from jdd.run.metrics import read
from tests import runs, toy_generator

ROOT = Path(jdd.__file__).parents[1]
LONG = 10**6
QUICK: dict[str, Any] = {
    "net.depth": 1, "eval.n": 1, "eval.epochs": 1, "eval.curve": 0, "baselines.random": 0,
    "baselines.full": False, "steps": 2, "max_start_epoch": 1, "expert_epochs": 1,
}  # fmt: skip
TEACHERS: dict[str, Any] = {
    "net.name": "ConvNetBN", "nets": "ConvNetBN", "squeeze.nets": "ConvNetBN", "squeeze.width": 4,
    "squeeze.epochs": 8, "squeeze.lr": 0.05, "squeeze.batch": 16, "eval.lr": 0.01,
    "baselines.hard": False, "relabel.bn": "eval",
}  # fmt: skip
# Stage: config and the keys that make this stage endless.
STAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "experts": ("mtt", {"max_start_epoch": LONG}),
    "distill": ("mtt", {"steps": LONG}),
    "evaluate": ("mtt", {"eval.epochs": LONG}),
    "full": ("mtt", {"baselines.full": True, "baselines.full_epochs": LONG}),
    "scores": ("mtt", {"scores": True, "baselines.full": True, "baselines.full_epochs": 1,
                       "baselines.random": 4000}),
    "protocol": ("mtt", {"eval.protocol": "common"}),
    "squeeze": ("sre2l", TEACHERS | {"squeeze.epochs": LONG}),
    "recover": ("sre2l", TEACHERS | {"steps": LONG}),
    "relabel": ("sre2l", TEACHERS | {"eval.epochs": 30_000}),
    "quality": ("gaussian", {"ipc": 3, "per_class": 2, "steps": 0, "quality.epochs": LONG,
                             "quality.images": 40, "quality.k": 3, "quality.width": 4}),
    "prior": (toy_generator.__file__, {"prior_steps": LONG, "net.name": "MLP", "nets": "MLP"}),
}  # fmt: skip
# Marks the begin of a stage, and is the command line otherwise.
ANNOUNCED = """
import sys
from pathlib import Path
from jdd import main
from jdd.run import pipeline
name, mark = sys.argv.pop(1), Path(sys.argv.pop(1))
found = pipeline.stages
def announced(config):
    def marked(stage):
        def run(context, session):
            mark.touch()
            stage.run(context, session)
        return stage._replace(run=run) if stage.name == name else stage
    return [marked(stage) for stage in found(config)]
pipeline.stages = announced
main.entry()
"""


def words(tiny: dict[str, Any], spec: str, more: dict[str, Any]) -> list[str]:
    """Return the flags of a small run."""
    schema = config.load(spec).config.spec.keys
    idle = () if spec == "mtt" else ("experts.count", "experts.group")
    keys = {k: v for k, v in {**tiny, **QUICK}.items() if k in schema and k not in idle} | more
    return [f"--config={spec}", *(f"--config.{k}={v}" for k, v in keys.items())]


def waited(child: subprocess.Popen[bytes], mark: Path) -> None:
    """Wait for a child to make ``mark``."""
    until = time.monotonic() + 240
    while not mark.exists():
        assert child.poll() is None and time.monotonic() < until, child.communicate()
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_saves_within_30_seconds(
    tiny: dict[str, Any], tmp_path: Path, stage: str
) -> None:
    spec, more = STAGES[stage]
    place, mark = tmp_path / "run", tmp_path / "mark"
    line = [sys.executable, "-c", ANNOUNCED, stage, str(mark), *words(tiny, spec, more)]
    child = subprocess.Popen(
        [*line, f"--workdir={place}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    waited(child, mark)
    time.sleep(4)
    assert child.poll() is None, f"{stage} has ended: {child.communicate()}"
    begun = time.monotonic()
    child.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=120)
    took = time.monotonic() - begun
    assert child.returncode == 130, err
    assert b"jdd: error: interrupted" in err and b"Traceback" not in err
    assert took < 30, f"{stage}: {took:.1f} s"


@pytest.mark.slow
def test_a_scheduler_s_restarts_finish_the_run_by_themselves(
    tiny: dict[str, Any], tmp_path: Path
) -> None:
    """The same command, ended by a limit of seconds each time, as a queue with time slots does."""
    more = {"steps": 400, "checkpoint_every": 10**6, "log_every": 50}
    whole, place = tmp_path / "whole", tmp_path / "run"
    assert main.main([*words(tiny, "mtt", more), f"--workdir={whole}"]) == 0
    line = [sys.executable, "-m", "jdd.main", *words(tiny, "mtt", more), f"--workdir={place}"]
    codes = []
    for seconds in [12 * 1.5**i for i in range(12)]:  # slots that grow, since a start takes time
        child = subprocess.run(
            [*line, f"--max-seconds={seconds:.0f}"], cwd=ROOT, capture_output=True, timeout=300
        )
        codes.append(child.returncode)
        if child.returncode == 0:
            break
        assert child.returncode == 130 and b"to go on: python -m jdd.main" in child.stderr
    assert codes[-1] == 0 and 130 in codes, codes
    ours, theirs = (DistilledSet.load(folder / "distilled.npz") for folder in (place, whole))
    np.testing.assert_array_equal(ours.images, theirs.images)
    assert ours.lr == theirs.lr
    steps = [(row["stage"], row["step"]) for row in read(place / "metrics.jsonl")]
    assert len(steps) == len(set(steps))


def test_checkpoints_by_time_change_no_bit(
    tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = {
        **tiny,
        **QUICK,
        "steps": 5,
        "checkpoint_every": 100,
        "experts.dir": str(tmp_path / "e"),
    }
    runs.run(keys, tmp_path / "steps", "experts")
    runs.run(keys, tmp_path / "steps", "distill")
    saved: list[int] = []
    save = loop.checkpoints.Steps.save

    def counted(self: Any, step: int, tree: Any) -> None:
        saved.append(step)
        save(self, step, tree)

    monkeypatch.setattr(loop.checkpoints.Steps, "save", counted)
    runs.run(keys | {"checkpoint_minutes": 1e-9}, tmp_path / "time", "distill")
    assert saved == [1, 2, 3, 4, 5, 5]  # after every step, and at the end
    ours, theirs = (DistilledSet.load(tmp_path / n / "distilled.npz") for n in ("time", "steps"))
    np.testing.assert_array_equal(ours.images, theirs.images)
    assert (tmp_path / "steps" / "config.json").read_text().count("checkpoint_") == 1


def test_a_profile_traces_a_few_steps_of_each_stage(tiny: dict[str, Any], tmp_path: Path) -> None:
    keys = {**tiny, **QUICK, "steps": 5, "experts.batch": 8}
    flags = [f"--config.{k}={v}" for k, v in keys.items()]
    place = tmp_path / "run"
    line = ["--config=mtt", *flags, f"--workdir={place}", "--mode=experts"]
    assert main.main([*line, "--profile=2"]) == 0
    line[-1] = "--mode=distill"
    assert main.main([*line, "--profile=2"]) == 0
    for stage in ("experts", "distill"):
        (file,) = (place / "profile" / stage).rglob("perfetto_trace.json.gz")
        with gzip.open(file, "rt", encoding="utf-8") as opened:
            events = json.load(opened)["traceEvents"]
        assert len(events) > 100 and any(event.get("dur") for event in events)
    assert {path.name for path in (place / "profile").iterdir()} == {"experts", "distill"}


@pytest.mark.parametrize(("steps", "wanted"), [(2, 0), (3, 1), (5, 3), (9, 3)])
def test_a_trace_begins_after_the_steps_that_compile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int, wanted: int
) -> None:
    calls: list[str] = []
    lines: list[str] = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda *a, **k: calls.append("start"))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    made = profile.Profile(tmp_path, 3, lines.append)
    made.begin("recover", True)
    for _ in range(steps):
        made.piece()  # of the accuracy curve
        made.step("recover")
    made.begin("evaluate", False)
    assert calls == ["start", "stop"] * bool(wanted)
    assert lines == [f"recover: trace of {wanted} steps in {tmp_path / 'recover'}"] * bool(wanted)


def test_a_trace_of_a_run_whose_directory_is_deleted_ends(tmp_path: Path) -> None:
    lines: list[str] = []
    for place in (tmp_path / "gone", tmp_path / "run"):  # of one process
        place.mkdir()
        made = profile.Profile(place / "profile", 3, lines.append)
        for _ in range(profile.WARM + 1):
            made.step("distill")
        if place.name == "gone":
            place.rmdir()
        made.end()
    assert lines == [f"distill: trace of 1 steps in {tmp_path / 'run/profile/distill'}"]
    assert list(tmp_path.rglob("perfetto_trace.json.gz")) and not (tmp_path / "gone").exists()


@pytest.mark.parametrize("flag", ["--profile=0", "--profile=all", "--profile=-1"])
def test_a_profile_of_no_steps_is_refused(capsys: Any, flag: str) -> None:
    assert main.main([flag]) == 2 and "--profile" in capsys.readouterr().err
    assert main.main(["--mode=estimate", "--profile=3"]) == 2
    assert "--mode=estimate" in capsys.readouterr().err
