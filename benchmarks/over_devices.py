"""Is a program over devices faster as pmap, or as jit of shard_map with NamedSharding?

    python -m benchmarks.over_devices
    python -m benchmarks.over_devices --devices=4 --width=64

Takes a step of DM and a step of training two nets on generated 32 x 32 images over ``--devices``
devices, of a CPU simulated ones, by both forms of ``jdd/parallel/over_devices.py`` in turns, and
prints a row of a Markdown table for each: milliseconds, their ratio, and the largest difference.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.timing import device
from jdd import nets, parallel
from jdd.parallel import over_devices
from jdd.training import trainer
from jdd.training.recipe import Recipe

HEAD = "| step | devices | device | pmap, ms | jit, ms | pmap / jit | difference |"


def matching(width: int, devices: list[jax.Device]) -> Callable[[], Any]:
    """Return a step of DM: the distance of mean features of ten classes, and its gradient."""
    net = nets.make("ConvNet", (32, 32, 3), 10, width=width)
    draw = np.random.default_rng(0)
    real = draw.normal(size=(10, 32, 32, 32, 3)).astype(np.float32)
    images = jnp.asarray(draw.normal(size=(10, 1, 32, 32, 3)), jnp.float32)

    def distance(variables: Any, aux: Any, item: Any, key: jax.Array) -> tuple[jax.Array, Any]:
        weights = net.init(key)
        ours, theirs = (
            jnp.mean(net.apply(weights, x, train=True).features, 0)
            for x in (variables[item["class"]], item["real"])
        )
        return jnp.sum((ours - theirs) ** 2), ()

    gradient = parallel.MeanGradient(distance, devices)
    items = {"class": np.arange(10), "real": real}
    keys = jnp.stack([jax.random.key(1)] * 10)
    return lambda: gradient(images, (), items, keys)


def training(width: int, devices: list[jax.Device]) -> Callable[[], Any]:
    """Return four steps of training two nets a device."""
    net = nets.make("ConvNet", (32, 32, 3), 10, width=width)
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(512, 32, 32, 3)), jnp.float32)
    y = jnp.arange(512) % 10
    run = trainer.make(net, Recipe(batch=128, strategy=""), 512)
    keys = jax.random.split(jax.random.key(0), 2 * len(devices))
    carry = jax.vmap(run.init)(keys)

    def steps(carry: Any, own: Any, x: Any, y: Any) -> Any:
        return run.advance(carry, trainer.Keys(own, own), x, y, jnp.float32(0.01), 0, 4)[0]

    mapped = parallel.spread(steps, (0, 0, None, None), devices)
    return lambda: mapped(carry, keys, x, y)


def main() -> None:
    """Time both forms and print the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=9)
    flags = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", flags.devices)  # of a CPU; others have theirs
    devices = jax.devices()[: flags.devices]
    print(HEAD, "|---|--:|---|--:|--:|--:|--:|", sep="\n")
    for name, make in (("DM", matching), ("training", training)):
        calls, found = {}, {}
        for form in over_devices.FORMS:
            over_devices.FORM = form  # read when a program is made
            calls[form] = make(flags.width, devices)
            found[form] = jax.block_until_ready(calls[form]())
        times: dict[str, list[float]] = {form: [] for form in calls}
        for _ in range(flags.repeats):
            for form, call in calls.items():
                begun = time.perf_counter()
                jax.block_until_ready(call())
                times[form].append(1e3 * (time.perf_counter() - begun))
        pmap, jit = (statistics.median(times[form]) for form in ("pmap", "jit"))
        off = max(
            float(np.max(np.abs(np.asarray(a) - np.asarray(b)), initial=0))
            for a, b in zip(*(jax.tree.leaves(tree) for tree in found.values()), strict=True)
        )
        print(
            f"| {name} | {len(devices)} | {device()} | {pmap:.0f} | {jit:.0f} | "
            f"{pmap / jit:.2f} | {off:.1g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
