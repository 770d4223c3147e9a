"""How much memory does one step of LoRS take, against plain reverse mode?

    python -m pytest benchmarks/test_pair_memory.py -s             # NFResNet18, width 64
    python -m pytest benchmarks/test_pair_memory.py -s --quick     # NFResNet10, width 16

The plans are XLA's own analysis of the programs as a run compiles them: nothing is run, and the
figures do not depend on noise. 100 pairs of 64 pixels, 8 student steps.
"""

from __future__ import annotations

import pytest

from benchmarks import pair_step
from benchmarks.pair_step import Size
from benchmarks.timing import Bench, report

pytestmark = pytest.mark.slow

SHARE = 1 / 4  # of plain reverse mode's temporaries, at most
GROWTH = 1.5  # copies of the weights that a further student step adds, at most


def test_mixed_mode_is_flat_for_pairs(bench: Bench) -> None:
    """At most a quarter of plain reverse; a step more costs at most 1.5 times the weights."""
    size = Size(width=bench.few(64, 16), depth=bench.few(18, 10))
    weights = pair_step.make(size).parameters
    print(f"\n{size.net}{size.depth}, width {size.width}: weights {weights / 1e6:.2f} MB")

    def planned(way: str, steps: int) -> int:
        found = pair_step.make(size._replace(steps=steps), unroll=way).planned()
        print(f"  {way:8}{steps:4} student steps{found / 1e6:10.0f} MB", flush=True)
        return found

    found = {way: planned(way, size.steps) for way in ("mixed", "reverse", "remat")}
    growth = {
        way: (planned(way, 2 * size.steps) - found[way]) / size.steps / weights
        for way in ("mixed", "remat")
    }
    share = found["mixed"] / found["reverse"]
    print(f"  mixed / reverse: {share:.3f}; a step more, in copies of the weights: {growth}")
    report(
        bench, "pair_memory", size._asdict(), temporaries_bytes=found, weights_bytes=weights,
        mixed_over_reverse=share, growth_in_weights=growth,
    )  # fmt: skip
    assert share <= SHARE
    assert growth["mixed"] <= GROWTH
