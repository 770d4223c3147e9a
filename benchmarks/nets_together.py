"""Are nets that are trained alike faster under one vmap, or one after another on the device?

    python -m benchmarks.nets_together
    python -m benchmarks.nets_together --net=ResNet18BN --width=64 --count=3 --batch=128

Trains ``--count`` nets on generated 32 x 32 images by ``fit`` through ``parallel.spread``,
both ways in turns, and prints a row of a Markdown table: milliseconds a step of all nets, and the
activations of one net's step, by which jdd chooses (``fit.LIGHT``). On a CPU jdd does neither:
there each net is a thread's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import device
from jdd import nets, parallel
from jdd.training import trainer
from jdd.training.recipe import Recipe

HEAD = "| net | nets | batch | device | activations | one after another | together | ratio |"


def trained(net: nets.Net, count: int, batch: int, together: bool) -> tuple[Any, Any]:
    """Return ``f(carry, lo, hi) -> carry`` of some nets' steps, and what it starts from."""
    images = np.random.default_rng(0).normal(size=(4 * batch, *net.shape)).astype(np.float32)
    data = jnp.asarray(images), jnp.arange(len(images)) % 10
    run = trainer.make(net, Recipe(batch=batch, strategy=""), len(images))
    keys = jax.random.split(jax.random.key(0), count)

    def steps(carry: Any, own: Any, lo: Any, hi: Any, x: Any, y: Any) -> Any:
        return run.advance(carry, trainer.Keys(own, own), x, y, jnp.float32(0.01), lo, hi)[0]

    axes = (0, 0, None, None, None, None)
    mapped = parallel.spread(steps, axes, jax.devices()[:1], together)
    return lambda carry, lo, hi: mapped(carry, keys, lo, hi, *data), jax.vmap(run.init)(keys)


def main() -> None:
    """Time both ways and print the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--net", default="ConvNet")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    flags = parser.parse_args()
    net = nets.make(flags.net, (32, 32, 3), 10, width=flags.width)
    sides = {way: trained(net, flags.count, flags.batch, way) for way in (False, True)}
    times: dict[bool, list[float]] = {way: [] for way in sides}
    for _ in range(flags.repeats + 1):
        for way, (run, carry) in sides.items():
            begun = time.perf_counter()
            jax.block_until_ready(run(carry, np.int32(0), np.int32(flags.steps)))
            times[way].append(1e3 * (time.perf_counter() - begun) / flags.steps)
    apart, joined = (statistics.median(times[way][1:]) for way in (False, True))  # 0 compiles
    size = net.activations(flags.batch) / 1e6
    print(f"{HEAD}\n|---|--:|--:|---|--:|--:|--:|--:|")
    print(
        f"| {flags.net}, width {flags.width} | {flags.count} | {flags.batch} | {device()} "
        f"| {size:.0f} MB | {apart:.2f} ms | {joined:.2f} ms | {joined / apart:.2f} |"
    )


if __name__ == "__main__":
    main()
