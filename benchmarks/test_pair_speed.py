"""How fast is a step of VL and LoRS next to PyTorch, on the same device, for the same gradients?

    python -m pytest benchmarks/test_pair_speed.py -s              # -k lors: one method
    python -m pytest benchmarks/test_pair_speed.py -s --quick      # does it run?

100 pairs of 64 pixels, 8 student steps, an NF-ResNet so narrow that PyTorch's graph of all steps
fits. As in ``test_speed.py`` both sides run in one process, in turns, and only after loss and all
gradients (images, text vectors, both rates, similarity) were found equal in float64.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch", reason="the speed benchmarks need PyTorch: pip install 'jdd[bench]'")

import jax

from benchmarks import agreement, pair_step, peers, replay
from benchmarks.pair_step import Size
from benchmarks.peers import bare, vl
from benchmarks.timing import Bench, report_times, take_turns

pytestmark = pytest.mark.slow

LOSS = {"lors": "wbce", "vl": "nce"}


@pytest.mark.parametrize("method", LOSS)
def test_pair_step(bench: Bench, method: str) -> None:
    """One outer step: loss, and its exact gradients in all that is learned."""
    peer = peers.prepare()
    size = Size(method, width=bench.few(16, 4), depth=10, pairs=bench.few(100, 10))
    size = size._replace(side=bench.few(64, 16), steps=bench.few(8, 2))
    agreed = agreement.pairs(size)
    step = pair_step.make(size)
    gradient, args = step.gradient()
    segment = replay.pairs(step)
    assert segment.loss == LOSS[method]

    def ours() -> Any:
        return jax.block_until_ready(gradient(*args))

    def torch_step() -> None:
        vl.meta_gradient(segment, size.steps)
        peers.wait()

    def torch_bare() -> None:
        bare.pairs(segment, size.steps)
        peers.wait()

    single = agreement.pairs_single(segment, ours(), size.steps)
    sides = {"jdd": ours, "torch": torch_step, "torch bare": torch_bare}
    spent: dict[str, list[float]] = {side: [] for side in sides}
    metered = {side: _metered(run, spent[side]) for side, run in sides.items()}
    times = take_turns(metered, bench.repeats)
    ratios = [t / j for t, j in zip(times.samples["torch"], times.samples["jdd"], strict=True)]
    report_times(
        bench,
        f"pair_step-{method}",
        size._asdict(),
        times,
        torch_over_bare=times.median("torch") / times.median("torch bare"),
        ratio_of_each_turn=[round(r, 3) for r in ratios],
        processor_s={side: statistics.median(found[2:]) for side, found in spent.items()},
        jdd_temporaries_mb=gradient.temporaries / 1e6,
        float64_difference=agreed,
        float32_difference=single,
        peer=peer,
    )


def _metered(run: Callable[[], Any], spent: list[float]) -> Callable[[], None]:
    """Return ``run`` that appends the processor time of all threads: a neighbour adds little."""

    def call() -> None:
        before = time.process_time()
        run()
        spent.append(time.process_time() - before)

    return call
