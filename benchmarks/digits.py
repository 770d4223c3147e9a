"""Does every method beat random images on digits, and in under a minute?

    python -m benchmarks.digits --methods=dc,dsa,dm --ipc=1,10 --seeds=3

One command a (method, IPC, seed), as a person would type it, with the method's own settings for
digits; prints a row of a Markdown table for every (method, IPC). Runs that are finished are read
again, so that an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from jdd.specs import title

OFF = ("--config.baselines.full=false", "--config.eval.curve=0", "--config.progress=false")


def run(method: str, ipc: int, seed: int, place: Path) -> dict[str, Any]:
    """Return the result of one run, with the seconds that its command took as "wall"."""
    workdir = place / f"{method}-{ipc}-{seed}"
    took = workdir / "wall.json"
    if not took.exists():
        start = time.perf_counter()
        config = f"--config=configs/{method}.py:digits,ipc={ipc},seed={seed}"
        command = [sys.executable, "-m", "jdd.main", config, f"--workdir={workdir}", *OFF]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        took.write_text(json.dumps(time.perf_counter() - start))
    found = json.loads((workdir / "result.json").read_text())
    return {**found, "wall": json.loads(took.read_text())}


def row(method: str, ipc: int, runs: list[dict[str, Any]]) -> str:
    """Return a row: accuracy over all nets of all seeds, its means, random images, seconds."""
    nets = [next(iter(found["accuracy"].values())) for found in runs]
    values = np.concatenate([net["values"] for net in nets])
    random = [found["baselines"]["random"] for found in runs]
    means = ", ".join(f"{100 * net['mean']:.1f}" for net in nets)
    chance = ", ".join(f"{100 * one['mean']:.1f}" for one in random)
    slowest = max(found["wall"] for found in runs)
    figure = f"{100 * values.mean():.1f} ± {100 * values.std():.1f} (n = {len(values)})"
    return f"| {title(method)} | {ipc} | {figure} | {means} | {chance} | {slowest:.0f} s |"


def main() -> None:
    """Run the methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--methods", default="dc,dsa,dm,frepo")
    parser.add_argument("--ipc", default="1,10")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--to", type=Path, default=Path("benchmarks/results/digits"))
    flags = parser.parse_args()
    print("| method | IPC | accuracy, % | seed by seed | random, seed by seed | slowest run |")
    print("|---|--:|--:|--:|--:|--:|", flush=True)
    for method in flags.methods.split(","):
        for ipc in map(int, flags.ipc.split(",")):
            runs = [run(method, ipc, seed, flags.to) for seed in range(flags.seeds)]
            print(row(method, ipc, runs), flush=True)


if __name__ == "__main__":
    main()
