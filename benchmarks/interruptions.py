"""Does a run that was killed end as one that was not?

    python -m benchmarks.interruptions --runs=6

Each run is ended once at a random moment of experts, distilling or evaluation, in turn, half of
them by SIGTERM and half by SIGKILL, then started again with the same command. Its images must be
bit-equal to those of a run left alone, result.json equal but for times and the process's memory,
and no step may stand twice in metrics.jsonl.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jdd.run.metrics import read

ARGS = [
    "--config=quickstart",
    "--config.net.width=8",
    "--config.steps=100",
    "--config.experts.count=4",
    "--config.experts.group=2",
    "--config.baselines.full=false",
    "--config.checkpoint_every=20",
    "--config.eval.curve=2",
    "--config.eval.epochs=400",
]
STAGES = ("experts", "distill", "evaluate")


def command(place: Path) -> list[str]:
    """Return the command of the run in ``place``."""
    return [sys.executable, "-m", "jdd.main", *ARGS, f"--workdir={place}"]


def spans(place: Path) -> dict[str, float]:
    """Return about how long each stage of a finished run took."""
    seconds = json.loads((place / "result.json").read_text())["seconds"]
    return {stage: seconds[stage] for stage in STAGES}


def reached(place: Path, stage: str) -> bool:
    """Tell whether a run has begun a stage."""
    if stage == "experts":
        return any((place / "experts").glob("g*/e*"))
    if stage == "distill":
        return any((place / "checkpoints" / "distill").glob("*"))
    return (place / "distilled.npz").exists()


def outcome(place: Path) -> tuple[bytes, dict[str, Any], bool]:
    """Return the set, the result without its measurements of time, and whether steps are unique."""
    result = json.loads((place / "result.json").read_text())
    for name in ("seconds", "command"):
        result.pop(name)
    result["peak_memory_bytes"].pop("process")
    for cost in result["nets"].values():
        cost.pop("seconds")
    steps = [(row["stage"], row["step"]) for row in read(place / "metrics.jsonl")]
    images = (place / "distilled.png").read_bytes()
    import numpy as np

    with np.load(place / "distilled.npz", allow_pickle=False) as arrays:
        images += arrays["images"].tobytes() + arrays["lr"].tobytes()
    return images, result, len(steps) == len(set(steps))


def interrupted(place: Path, stage: str, number: int, wait: float) -> tuple[int, bool]:
    """Start a run, end it ``wait`` seconds into ``stage``; return its code and whether it ran."""
    log = (place.parent / f"{place.name}.log").open("w")
    child = subprocess.Popen(command(place), stdout=log, stderr=log)
    while not reached(place, stage) and child.poll() is None:
        time.sleep(0.02)
    time.sleep(wait)
    running = child.poll() is None
    child.send_signal(number)
    return child.wait(), running


def main() -> None:
    """Run the benchmark and print one line a run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    draw = random.Random(flags.seed)
    root = Path(tempfile.mkdtemp(prefix="jdd-interruptions-"))
    for name in ("whole", "again"):  # the second one finds what the first has cached
        subprocess.run(command(root / name), check=True, capture_output=True)
    whole, long = outcome(root / "whole"), spans(root / "again")
    equal = 0
    for i in range(flags.runs):
        place, stage = root / f"run{i}", STAGES[i % len(STAGES)]
        number = signal.SIGTERM if i % 2 == 0 else signal.SIGKILL
        wait = draw.uniform(0, 0.4) * long[stage]
        code, running = interrupted(place, stage, number, wait)
        done = read(place / "metrics.jsonl")
        last = f"{done[-1]['stage']} {done[-1]['step']}" if done else "the start"
        subprocess.run(command(place), check=True, capture_output=True)
        found = outcome(place)
        same = found[:2] == whole[:2] and found[2]
        equal += same and running
        print(
            f"run {i}: {signal.Signals(number).name} {wait:.1f} s into {stage} (after {last}), "
            f"exit {code}; images {'bit-equal' if found[0] == whole[0] else 'DIFFER'}, result "
            f"{'equal' if found[1] == whole[1] else 'DIFFERS'}, steps "
            f"{'once each' if found[2] else 'TWICE'}",
            flush=True,
        )
    print(f"{equal} passed, {flags.runs - equal} failed")
    sys.exit(equal != flags.runs)


if __name__ == "__main__":
    main()
