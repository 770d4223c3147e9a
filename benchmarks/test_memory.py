"""How much memory does one MTT step take, against plain reverse mode and against PyTorch?

    python -m pytest benchmarks/test_memory.py -s

The plans are XLA's own analysis of the compiled programs: nothing is run, and the figures do not
depend on noise. The processes' memory is measured, in a process of its own for each side.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import jax
import pytest

from benchmarks import meta_step
from benchmarks.meta_step import Size
from benchmarks.timing import Bench, report

pytestmark = pytest.mark.slow

WAYS = {
    "mixed": {"unroll": "mixed"},
    "remat": {"unroll": "remat"},
    "reverse": {"unroll": "reverse"},
    "tesla": {"estimator": "tesla"},
}
PUBLISHED = Size("cifar10", 128, 1, 80)


def planned(way: str, steps: int) -> int:
    """Return XLA's temporaries in bytes for one step, ConvNet D3 W128, IPC 1."""
    return meta_step.make(PUBLISHED._replace(steps=steps), **WAYS[way]).planned()


def test_mixed_mode_is_flat() -> None:
    """Issue's measure: a tenth of plain reverse at N = 50; a step more costs at most 3 |theta|."""
    params = meta_step.make(PUBLISHED).batch["start"]["params"]
    theta = 4 * sum(x.size for x in jax.tree.leaves(params))
    mixed, longer, plain = planned("mixed", 50), planned("mixed", 100), planned("reverse", 50)
    growth = (longer - mixed) / 50
    print(
        f"\nN = 50: mixed {mixed / 1e6:.0f} MB, reverse {plain / 1e6:.0f} MB, ratio "
        f"{plain / mixed:.1f}; a step more: {growth / theta:.2f} times the parameters' "
        f"{theta / 1e6:.2f} MB"
    )
    assert mixed <= plain / 10
    assert growth <= 3 * theta


def test_ways_of_differentiating(bench: Bench) -> None:
    """XLA's temporaries of every way of computing the step."""
    size = PUBLISHED._replace(steps=bench.few(PUBLISHED.steps, 4))
    found = {way: planned(way, size.steps) for way in WAYS}
    print(f"\nXLA temporaries, N = {size.steps}, IPC {size.ipc}, width {size.width}")
    for way, count in found.items():
        print(f"  {way:8}{count / 1e6:10.0f} MB{count / found['mixed']:8.2f} times mixed")
    report(bench, "memory_ways", size._asdict(), temporaries_bytes=found)


@pytest.mark.parametrize("estimator", ("exact", "tesla"))
def test_process(bench: Bench, estimator: str) -> None:
    """The most resident memory of a process over what it held before the step."""
    if not importlib.util.find_spec("torch"):
        pytest.skip("the comparison needs PyTorch: pip install 'jdd[bench]'")
    steps = bench.few(PUBLISHED.steps, 4)
    flags = [f"--steps={steps}", f"--estimator={estimator}"]
    found = {side: process([side, *flags]) for side in ("jdd", "torch")}
    print(f"\nprocess memory over idle, N = {steps}, IPC 1, width 128, {estimator}")
    over = {side: values["most"] - values["idle"] for side, values in found.items()}
    for side, values in found.items():
        told = ", ".join(f"{name} {count / 1e6:.0f} MB" for name, count in values.items())
        print(f"  {side:6}{over[side] / 1e6:8.0f} MB   ({told})")
    print(f"  torch / jdd: {over['torch'] / over['jdd']:.1f}")
    size = PUBLISHED._replace(steps=steps)
    report(
        bench,
        f"memory_process-{estimator}",
        size._asdict(),
        bytes=found,
        over_idle_bytes=over,
        ratio_torch_over_jdd=over["torch"] / over["jdd"],
    )


def process(words: list[str]) -> dict[str, int]:
    """Return what ``benchmarks.resident`` finds in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.resident", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))
