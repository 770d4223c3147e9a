"""What do coarser matrix products cost? Meta-gradients and sets with rounded operands.

    python -m benchmarks.precision --angles --methods=mtt,dc,dm
    python -m benchmarks.precision --sets --methods=mtt,dc,dm

The digits, each method's own settings. ``--angles``: of the images' gradient at steps 0 and 10 of a
run, with operands of 15, 10 and 7 bits (a TPU's ``high``, TF32, bfloat16; ``rounded_products.py``),
the angle to the gradient in float32, in degrees, and its length relative to that. ``--sets``: the
accuracy of whole runs at each precision, of everything, and of all but the learning of images
(``train_precision``). Prints Markdown.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import rounded_products
from benchmarks.rounded_products import BFLOAT16, FLOAT32, HALVES, TF32
from jdd.main import main as jdd
from jdd.parallel import MeanGradient
from jdd.specs import title

Tree = Any
BITS = {HALVES: "high (15 bits)", TF32: "TF32", BFLOAT16: "bfloat16"}
STEPS = (0, 10)
OFF = ("--config.baselines.full=false", "--config.eval.curve=0", "--config.baselines.random=0")


class Captured(NamedTuple):
    """One call of a run's mean gradient: what it differentiates, and its arguments."""

    objective: Any
    args: tuple[Tree, ...]


def captured(method: str, place: Path) -> list[Captured]:
    """Return the gradients of some steps of a run on the digits, and make that run."""
    calls: list[Captured] = []
    plain = MeanGradient.__call__

    def call(self: MeanGradient, *args: Tree) -> Tree:
        calls.append(Captured(self._objective, jax.tree.map(np.asarray, args[:3]) + args[3:]))
        return plain(self, *args)

    keys = (f"--config.steps={STEPS[-1] + 1}", "--config.eval.n=1", "--config.progress=false")
    with mock.patch.object(MeanGradient, "__call__", call):
        jdd([f"--config={method}:digits,ipc=1", f"--workdir={place / method}", *OFF, *keys])
    if not calls:
        raise SystemExit(f"{place / method} is finished; delete it, or name another --to")
    return [calls[step] for step in STEPS]


def gradient(call: Captured, bits: int) -> np.ndarray:
    """Return the gradient with respect to the images as one vector, by operands of ``bits``."""
    rounded_products.use(bits)
    mean = MeanGradient(call.objective, jax.devices()[:1])
    _, found = mean(*jax.tree.map(jnp.asarray, call.args))
    return np.asarray(found["images"], np.float64).ravel()


def angles(method: str, place: Path) -> Iterator[str]:
    """Yield a row for each of ``STEPS``."""
    rounded_products.use(FLOAT32)
    for step, call in zip(STEPS, captured(method, place), strict=True):
        exact, cells = gradient(call, FLOAT32), []
        for bits in BITS:
            found = gradient(call, bits)
            lengths = np.linalg.norm(found), np.linalg.norm(exact)
            cosine = float(found @ exact / (lengths[0] * lengths[1]))
            degrees = math.degrees(math.acos(min(1.0, max(-1.0, cosine))))
            cells.append(f"{degrees:.2g}° ({lengths[0] / lengths[1]:.3f})")
        yield f"| {title(method)} | {step} | {' | '.join(cells)} |"


def sets(method: str, place: Path) -> str:
    """Return a row: the accuracy of whole runs, products rounded everywhere or in training only."""
    cells = []
    for bits in (FLOAT32, TF32, BFLOAT16):
        for learned in ("default", "highest") if bits < FLOAT32 else ("highest",):
            workdir = place / f"{method}-{bits}-{learned}"
            if not (workdir / "result.json").exists():
                keys = (f"--config.precision={learned}", "--config.train_precision=default")
                run = ("--run", f"--bits={bits}", f"--config={method}:digits,ipc=1")
                command = [sys.executable, "-m", "benchmarks.precision", *run, *keys, *OFF]
                subprocess.run([*command, f"--workdir={workdir}"], check=True)
            found = json.loads((workdir / "result.json").read_text())["accuracy"]
            (one,) = found.values()
            cells.append(f"{100 * one['mean']:.1f} ± {100 * one['std']:.1f}")
    return f"| {title(method)} | {' | '.join(cells)} |"


def main() -> None:
    """Run what is asked for and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--angles", action="store_true")
    parser.add_argument("--sets", action="store_true")
    parser.add_argument("--methods", default="dd,dc,dsa,dm,mtt,tesla,frepo,ratbptt")
    parser.add_argument("--to", type=Path, default=Path("benchmarks/results/precision"))
    parser.add_argument("--run", action="store_true", help="a command of jdd, rounded by --bits")
    parser.add_argument("--bits", type=int, default=FLOAT32)
    flags, rest = parser.parse_known_args()
    if flags.run:
        rounded_products.use(flags.bits)
        sys.exit(jdd(rest))
    echo = functools.partial(print, flush=True)
    methods = flags.methods.split(",")
    if flags.angles:
        echo(f"| method | step | {' | '.join(BITS.values())} |\n|---|--:{'|--:' * len(BITS)}|")
        for method in methods:
            for row in angles(method, flags.to / "angles"):
                echo(row)
    if flags.sets:
        whole = "TF32 | TF32, images in float32 | bfloat16 | bfloat16, images in float32"
        echo(f"| method | float32 | {whole} |\n|---|{'--:|' * 5}")
        for method in methods:
            echo(sets(method, flags.to / "sets"))


if __name__ == "__main__":
    main()
