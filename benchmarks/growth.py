"""How do time and memory of jdd grow with N, IPC, width, expert segments and experts at once?

    python -m benchmarks.growth                       # all; measures, writes JSON, draws the plot
    python -m benchmarks.growth --only=steps,width    # some of the curves
    python -m benchmarks.growth --draw                # draws again from the JSON
    python -m benchmarks.growth --tiny                # does it run?

MTT on ConvNet D3, 32x32x3, 10 classes. Time: the median of ``--repeats`` steps after a first one.
Memory: the temporaries XLA plans, for mixed mode and, by compiling alone, for plain reverse mode
and TESLA. The last curve is one step of training a group of experts. Writes
``benchmarks/results/growth-<device>.json`` and ``docs/img/cost_growth.png``; the plot needs
matplotlib: pip install 'jdd[bench]'.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import meta_step
from benchmarks.meta_step import Size
from benchmarks.timing import HERE, Bench, device, report
from jdd import parallel
from jdd.pretrained import train as experts
from jdd.training import trainer
from jdd.training.recipe import Recipe

Row = dict[str, Any]
PLOT = HERE.parent / "docs" / "img" / "cost_growth.png"
WAYS = {"reverse": {"unroll": "reverse"}, "tesla": {"estimator": "tesla"}}

# One curve a question: what varies, its values, and where the rest stands.
CURVES: dict[str, tuple[str, list[int], Size]] = {
    "steps": ("N, student steps (IPC 1, width 128)", [5, 10, 20, 40, 80], Size()),
    "ipc": ("IPC, images per class (N = 5, width 128)", [1, 10, 50], Size(steps=5)),
    "width": ("width of the net (N = 20, IPC 1)", [32, 64, 128], Size(steps=20)),
    "segments": ("expert segments in a step (N = 10, IPC 1)", [1, 2, 4], Size(steps=10)),
    "experts": ("experts trained at once (batch 256, width 64)", [1, 2, 5], Size(width=64)),
}
TINY: dict[str, list[int]] = {
    "steps": [1, 2],
    "ipc": [1, 2],
    "width": [4, 8],
    "segments": [1, 2],
    "experts": [1, 2],
}


def measure(curve: str, value: int, size: Size, repeats: int) -> Row:
    """Return seconds and planned bytes of one point of a curve."""
    segments = value if curve == "segments" else 1
    changed: dict[str, Any] = {} if curve == "segments" else {curve: value}
    size = size._replace(**changed)
    gradient, args = meta_step.make(size).gradient(segments)
    samples = _seconds(lambda: gradient(*args), repeats)
    planned = {"mixed": gradient.temporaries}
    if curve != "segments":  # they run one after another: the plan is that of one
        planned |= {way: meta_step.make(size, **keys).planned() for way, keys in WAYS.items()}
    return _row(value, size, samples, planned)


def _seconds(call: Callable[[], Any], repeats: int) -> list[float]:
    samples = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(call())
        samples.append(time.perf_counter() - start)
    return samples


def _row(value: int, size: Size, samples: list[float], planned: dict[str, int]) -> Row:
    return {
        "value": value,
        "size": size._asdict(),
        "first_call_s": samples[0],
        "samples_s": samples[1:],
        "median_s": statistics.median(samples[1:]),
        "temporaries_bytes": planned,
    }


def measure_experts(group: int, size: Size, repeats: int) -> Row:
    """Return seconds and planned bytes of one training step of a group of experts."""
    step = meta_step.make(size)
    recipe = Recipe(momentum=0.0, weight_decay=0.0, strategy=step.strategy)
    run = trainer.make(step.net, recipe, recipe.batch)
    advance = experts.advance(run, tuple(jax.devices()[:1]))
    keys = jax.random.split(jax.random.key(0), group)
    carry = jax.jit(jax.vmap(run.init))(keys)
    x = jnp.asarray(meta_step.noise((recipe.batch, *size.shape)))
    args = (keys, keys[:1], x, jnp.arange(recipe.batch) % size.classes, jnp.float32(0.01), 0, 1)
    planned = parallel.planned(advance, carry, *args)
    samples = _seconds(lambda: advance(carry, *args), repeats)
    return _row(group, size, samples, {"mixed": planned})


def run(names: list[str], tiny: bool, repeats: int) -> dict[str, list[Row]]:
    """Measure curves, printing a line a point."""
    found: dict[str, list[Row]] = {}
    for name in names:
        _, values, size = CURVES[name]
        if tiny:
            values, size = TINY[name], Size(width=4, steps=2)
        for value in values:
            if name == "experts":
                row = measure_experts(value, size, repeats)
            else:
                row = measure(name, value, size, repeats)
            plans = ", ".join(f"{w} {b / 1e6:.0f} MB" for w, b in row["temporaries_bytes"].items())
            print(f"{name} {value}: {row['median_s']:.3f} s a step; {plans}", flush=True)
            found.setdefault(name, []).append(row)
    return found


def draw(curves: dict[str, list[Row]], where: str, path: Path) -> None:
    """Draw time above memory, a column a curve, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

    columns = len(curves)
    figure, axes = plt.subplots(2, columns, figsize=(3.6 * columns, 6), squeeze=False)
    styles = {"mixed": "o-", "reverse": "s--", "tesla": "^:"}
    for column, (name, rows) in enumerate(curves.items()):
        above, below = axes[0, column], axes[1, column]
        x = [row["value"] for row in rows]
        above.plot(x, [row["median_s"] for row in rows], "o-", color="C0", label="jdd, measured")
        first = rows[0]
        line = [first["median_s"] * value / first["value"] for value in x]
        above.plot(x, line, ":", color="grey", label="proportional")
        for i, (way, style) in enumerate(styles.items()):
            y = [row["temporaries_bytes"].get(way, 0) / 1e6 for row in rows]
            if all(y):
                label = "jdd" if way == "mixed" else f"{way} (compiled only)"
                below.plot(x, y, style, color=f"C{i}", label=label)
        for axis in (above, below):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xticks(x, [str(value) for value in x])
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            for line_of in (axis.xaxis, axis.yaxis):
                line_of.set_minor_locator(NullLocator())
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
        below.set_xlabel(CURVES[name][0])
    axes[0, 0].set_ylabel("seconds a step")
    axes[1, 0].set_ylabel("XLA temporaries, MB")
    figure.suptitle(
        f"Cost of one MTT outer step, and of expert training (ConvNet D3, 32x32x3), {where}"
    )
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    print(path)


def main() -> None:
    """Measure, write, draw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(CURVES), help="curves, joined by commas")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--draw", action="store_true", help="draw from the JSON that is there")
    parser.add_argument("--json", type=Path, default=HERE / "results", help="folder of the JSON")
    parser.add_argument("--plot", type=Path, default=PLOT)
    flags = parser.parse_args()
    bench = Bench(flags.repeats, flags.tiny, flags.json, False)
    if flags.draw:
        tag = re.sub(r"[^a-z0-9]+", "_", device().lower()).strip("_")
        name = f"growth-{tag}{'-quick' if flags.tiny else ''}.json"
        content = json.loads((flags.json / name).read_text())
        curves, where = content["curves"], content["where"]
    else:
        curves = run(flags.only.split(","), flags.tiny, flags.repeats)
        where = f"{device()}, {jax.device_count()} device(s)"
        report(bench, "growth", {"repeats": flags.repeats}, curves=curves, where=where)
    draw(curves, where, flags.plot)


if __name__ == "__main__":
    main()
