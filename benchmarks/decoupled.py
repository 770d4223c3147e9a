"""What do squeezed, recovered and relabelled sets reach, and how much of it do the labels do alone?

    python -m benchmarks.decoupled --data=digits --ipc=1,10
    python -m benchmarks.decoupled --data=cifar10_jpeg --ipc=10,50 --path=cifar10_jpeg.tar.xz
    python -m benchmarks.decoupled --data=cifar10_jpeg --published ...               with a GPU

One command a (method, IPC), as a person would type it; prints a row of a Markdown table for each:
the set, random real images with the same teachers' labels, and both with hard labels in the same
views. Digits: the methods' own settings. CIFAR-10: teacher and student ConvNetBN of width 32,
teachers squeezed for 10 epochs (G-VBSM's two, ConvNetBN and ConvNet, for 5 each, as published),
students for 300, at IPC 50 for 60 and after half the steps of recovery, the published recipes
otherwise but for ``CIFAR`` and ``MANY`` below; with --published, ResNet18 and the methods' own
settings (SRe2L's are those of its CIFAR-100 script, CDA's follow them) but for the epochs of the
teacher of SRe2L, CDA and RDED, which is one, and the number of random draws. Runs that are
finished are read again; what was cut goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

METHODS = "sre2l,cda,gvbsm,rded"
OFF = {"baselines.full": "false", "progress": "false", "eval.n": 3}
CIFAR: dict[str, dict[str, Any]] = {
    "": {
        "squeeze.nets": "ConvNetBN", "squeeze.width": 32, "squeeze.epochs": 10,
        "net.name": "ConvNetBN", "net.width": 32, "nets": "ConvNetBN", "eval.epochs": 300,
    },
    "gvbsm": {
        "squeeze.nets": "ConvNetBN,ConvNet", "squeeze.epochs": 5, "steps": 1000,
    },
}  # fmt: skip
MANY: dict[str, Any] = {"eval.epochs": 60, "steps": 500}  # from IPC 50 on
# On a GPU, with TF32 products as the authors' PyTorch has them. SRe2L's teacher has 200 epochs.
PUBLISHED: dict[str, dict[str, Any]] = {
    "": {"precision": "default", "baselines.random": 1, "squeeze.epochs": 60},
    "gvbsm": {"squeeze.epochs": 5},
}


def run(
    method: str, ipc: int, data: str, path: str, place: Path, published: bool = False
) -> dict[str, Any]:
    """Return the result of one run."""
    workdir = place / f"{method}-{ipc}"
    keys: dict[str, Any] = dict(OFF)
    if published:
        keys |= PUBLISHED[""] | PUBLISHED.get(method, {})
    elif data == "cifar10_jpeg":
        keys |= CIFAR[""] | CIFAR.get(method, {})
        if ipc >= 50:
            keys |= MANY
            if method == "rded":  # patches are chosen: no steps
                del keys["steps"]
    if path:
        keys["data.path"] = path
    keys["squeeze.dir"] = place / ("teachers-gvbsm" if method == "gvbsm" else "teachers")
    flags = [f"--config.{name}={value}" for name, value in keys.items()]
    config = f"--config=configs/{method}.py:{data},ipc={ipc}"
    line = [sys.executable, "-m", "jdd.main", config, f"--workdir={workdir}", *flags]
    print(" ".join(map(str, line[1:])), file=sys.stderr, flush=True)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, Any] = json.loads((workdir / "result.json").read_text())
    return found


def figure(score: dict[str, Any] | None) -> str:
    """Return mean ± std (n) in percent."""
    if not score:
        return "not yet run"
    spread = f" ± {100 * score['std']:.1f}" if score["std"] is not None else ""
    return f"{100 * score['mean']:.1f}{spread} ({score['n']})"


def row(found: dict[str, Any]) -> str:
    """Return a row: the set and what stands beside it, the teachers, seconds a stage."""
    (ours,) = found["accuracy"].values()
    beside = found["baselines"]
    cells = [figure(ours), *(figure(beside[k]) for k in ("random", "hard", "random_hard"))]
    told = ", ".join(f"{net} {100 * value:.1f}" for net, value in found["teachers"].items())
    spent: dict[str, float] = {}
    for stage, seconds in found["seconds"].items():
        name = stage.partition("-")[0]
        spent[name] = spent.get(name, 0) + seconds
    seconds = ", ".join(f"{name} {value:.0f}" for name, value in spent.items())
    return f"| {found['method']} | {found['ipc']} | {' | '.join(cells)} | {told} | {seconds} |"


def main() -> None:
    """Run the methods and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="digits", choices=("digits", "cifar10_jpeg"))
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--ipc", default="1,10")
    parser.add_argument("--path", default="")
    parser.add_argument("--published", action="store_true", help="the published nets and settings")
    parser.add_argument("--to", type=Path)
    flags = parser.parse_args()
    if flags.published and flags.data != "cifar10_jpeg":
        parser.error("--published is of --data=cifar10_jpeg")
    kind = "-published" * flags.published
    place = flags.to or Path("benchmarks/results") / f"decoupled-{flags.data}{kind}"
    print("| method | IPC | the set | random, same labels | the set, hard labels | random, hard | "
          "teachers | seconds |")  # fmt: skip
    print("|---|--:|--:|--:|--:|--:|---|---|", flush=True)
    for ipc in map(int, flags.ipc.split(",")):
        for method in flags.methods.split(","):
            found = run(method, ipc, flags.data, flags.path, place, flags.published)
            print(row(found), flush=True)


if __name__ == "__main__":
    main()
