"""Does data of your own work the first time, with no setting but the name and the path?

    python -m benchmarks.own_data --data=FOLDER --to=runs/own                 # everything, hours
    python -m benchmarks.own_data --data=FOLDER --to=runs/own --methods=dm --sets=tiny_3 --seeds=1
    python -m benchmarks.own_data --data=FOLDER --to=runs/own-fixed --more=--config.probe=false
    python -m benchmarks.own_data --data=FOLDER --to=runs/own --read          # the table so far

Ten small sets unlike the tuned ones (``own_sets``), one image a class; a command a (set, method,
seed), as a person would type it: settings are ``auto``, only the evaluation is shortened. FOLDER
holds ``mnist_png.zip``, ``tiny_imagenet_100.zip`` and ``cifar10.npz``. Prints, and writes to
``own_data.md`` and ``own_data.json``, a table of accuracy next to random images, the most CPU
seconds of a run, and what failed; bold is what falls short. Finished and failed runs are read
again: the same command goes on with the others, and with ``--again`` with those that failed too.
The CPU time of a run is that of all its parts, stopped, failed and last: ``own_data.json`` in its
folder sums them.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import own_sets
from jdd.specs import title

Row = dict[str, Any]
THRICE = ("mtt", "dc", "dm", "rded")
NOTED = "own_data.json"  # in the folder of a run
WANTED = 180  # CPU seconds of a run, at most
STOPPED = 130  # exit status of a run that was stopped and goes on
ONCE = ("tesla", "datm", "dsa", "frepo", "ratbptt")
SHORT = (
    "--config.eval.n=3", "--config.eval.curve=0", "--config.baselines.random=3",
    "--config.baselines.full=false", "--config.progress=false",
)  # fmt: skip


def run(name: str, method: str, seed: int, flags: argparse.Namespace) -> Row:
    """Return one run: figures, or its exit status and last line; with the CPU seconds it took.

    Raises:
      SystemExit: the run was stopped; its CPU seconds so far are noted.
    """
    place = flags.to / f"{method}-{name}-{seed}"
    row = _noted((seed, name, method), flags.to)
    if row["status"] == STOPPED or row["status"] != 0 and flags.again:
        path = own_sets.write(name, flags.data, flags.to / "sets")
        command = [
            sys.executable, "-m", "jdd.main",
            f"--config=configs/{method}.py:{name},ipc=1,seed={seed}", f"--config.data.path={path}",
            f"--workdir={place}", *own_sets.SETS[name].keys, *SHORT, *flags.more,
        ]  # fmt: skip
        before = _used()
        status, lines = _ended(command)
        row = {"status": status, "cpu": row["cpu"] + _used() - before, "line": lines[-1:] or [""]}
        place.mkdir(parents=True, exist_ok=True)
        (place / NOTED).write_text(json.dumps(row))
        if status == STOPPED:  # the same command goes on
            sys.exit(STOPPED)
    result = place / "result.json"
    if row["status"] == 0 and result.exists():
        found = json.loads(result.read_text())
        net = next(iter(found["accuracy"].values()))
        row |= {"values": net["values"], "random": found["baselines"]["random"]["values"]}
    return row | {"set": name, "method": method, "seed": seed}


def _noted(job: tuple[int, str, str], to: Path) -> Row:
    """Return what is noted of a run: its exit status, ``STOPPED`` if it has none yet, and time."""
    seed, name, method = job
    noted = to / f"{method}-{name}-{seed}" / NOTED
    return json.loads(noted.read_text()) if noted.exists() else {"status": STOPPED, "cpu": 0.0}


def _ended(command: list[str]) -> tuple[int, list[str]]:
    """Return the exit status of a command, ``STOPPED`` where Ctrl-C stopped it, and its lines."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stopped = False
    try:
        out, errors = process.communicate()
    except KeyboardInterrupt:  # the terminal stops the run too: it saves its state, then ends
        out, errors = process.communicate()
        stopped = process.returncode != 0
    return STOPPED if stopped else process.returncode, (errors or out).strip().splitlines()


def _used() -> float:
    """Return the CPU seconds of all finished children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def cell(rows: list[Row]) -> Row:
    """Return the figures of a (set, method): means, population deviations, and the verdict.

    ``below`` and ``above``: the difference of the means is above both deviations.
    """
    good = [row for row in rows if "values" in row]
    if not good:
        return {"failed": len(rows)}
    values = [v for row in good for v in row["values"]]
    random = [v for row in good for v in row["random"]]
    ours, theirs = statistics.fmean(values), statistics.fmean(random)
    spread = max(statistics.pstdev(values), statistics.pstdev(random))
    return {
        "mean": ours, "std": statistics.pstdev(values), "n": len(values), "random": theirs,
        "random_std": statistics.pstdev(random), "below": theirs - ours > spread,
        "above": ours - theirs > spread, "failed": len(rows) - len(good),
        "cpu": max(row["cpu"] for row in rows),
    }  # fmt: skip


def table(rows: list[Row]) -> str:
    """Return the Markdown table, a line a set and a column a method, and a line of counts each."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    cells = {
        (name, method): cell(own)
        for name in dict.fromkeys(row["set"] for row in rows)
        for method in methods
        if (own := [row for row in rows if (row["set"], row["method"]) == (name, method)])
    }
    lines = [f"| set | {' | '.join(map(title, methods))} |", "|---" + "|--:" * len(methods) + "|"]
    for name in dict.fromkeys(name for name, _ in cells):
        found = [_shown(cells.get((name, method))) for method in methods]
        lines.append(f"| {own_sets.SETS[name].words} | {' | '.join(found)} |")
    counts = []
    for method in methods:
        own = [found for (_, of), found in cells.items() if of == method]
        above, below, failed = (
            sum(int(found.get(key, 0)) for found in own) for key in ("above", "below", "failed")
        )
        runs = sum(row["method"] == method for row in rows)
        counts.append(
            f"- {title(method)}: above random on {above} of {len(own)} sets, below on {below}; "
            f"{failed} of {runs} runs failed"
        )
    return "\n".join([*lines, "", *counts, ""])


def _shown(found: Row | None) -> str:
    """Return a cell: accuracy, random images', the most CPU seconds; bold where it falls short."""
    if found is None:
        return "not yet run"
    if "mean" not in found:
        return f"**{found['failed']} failed**"
    ours = f"{100 * found['mean']:.1f} ± {100 * found['std']:.1f}"
    theirs = f"{100 * found['random']:.1f} ± {100 * found['random_std']:.1f}"
    seconds = f"{found['cpu']:.0f}"
    ours = f"**{ours}**" if found["below"] else ours
    seconds = f"**{seconds}**" if found["cpu"] > WANTED else seconds
    failed = f", **{found['failed']} failed**" if found["failed"] else ""
    return f"{ours}, random {theirs} ({seconds}){failed}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--to", type=Path, default=Path("runs/own_data"))
    parser.add_argument("--methods", default=",".join((*THRICE, *ONCE)))
    parser.add_argument("--sets", default=",".join(own_sets.SETS))
    parser.add_argument("--seeds", type=int, default=0, help="0: 3 of some methods, else 1")
    parser.add_argument("--read", action="store_true", help="only the table of finished runs")
    parser.add_argument("--again", action="store_true", help="try runs that failed once more")
    parser.add_argument("--more", action="append", default=[], help="a further flag of every run")
    flags = parser.parse_args()
    flags.to = Path(os.path.abspath(flags.to))
    flags.data = Path(os.path.abspath(flags.data))
    jobs = [
        (seed, name, method)
        for method in flags.methods.split(",")
        for name in flags.sets.split(",")
        for seed in range(flags.seeds or (3 if method in THRICE else 1))
    ]
    rows = []
    if flags.read:
        jobs = [job for job in jobs if _noted(job, flags.to)["status"] != STOPPED]
    for seed, name, method in sorted(jobs):  # the first seed of everything comes first
        rows.append(run(name, method, seed, flags))
        (flags.to / "own_data.json").write_text(json.dumps(rows, indent=1))
        (flags.to / "own_data.md").write_text(table(rows))
        row = rows[-1]
        print(f"{method} {name} {seed}: {row['status']} {row['cpu']:.0f} s", flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
