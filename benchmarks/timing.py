"""How the benchmarks measure and report: two sides in one process, in turns, medians and all."""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax

HERE = Path(__file__).parent


class Bench(NamedTuple):
    """The options of a run of benchmarks; ``results`` is the folder for the JSON files."""

    repeats: int
    quick: bool
    results: Path
    tf32: bool

    def few(self, many: int, quick: int) -> int:
        """Return ``many``, or ``quick`` with --quick."""
        return quick if self.quick else many


class Times(NamedTuple):
    """Seconds by side: every sample, and the first call, which compiles and warms up."""

    samples: dict[str, list[float]]
    first: dict[str, float]

    def median(self, side: str) -> float:
        """Return a side's median in seconds."""
        return statistics.median(self.samples[side])


def take_turns(sides: Mapping[str, Callable[[], Any]], repeats: int) -> Times:
    """Time sides in turns, A B A B ...; each has to wait for its device itself.

    The first call of each is reported apart, the second is thrown away.
    """
    first = {name: _seconds(run) for name, run in sides.items()}
    for run in sides.values():
        run()
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            samples[name].append(_seconds(run))
    return Times(samples, first)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def report(bench: Bench, name: str, settings: Mapping[str, Any], **found: Any) -> Path:
    """Write a benchmark's findings with all that they depend on; return the file."""
    content = {
        "name": name,
        "device": device(),
        "cores": os.cpu_count(),
        "cpu": _cpu(),
        "versions": versions(),
        "precision": "tf32" if bench.tf32 else "float32",
        "quick": bench.quick,
        "settings": dict(settings),
        **found,
    }
    tag = re.sub(r"[^a-z0-9]+", "_", device().lower()).strip("_")
    path = bench.results / f"{name}-{tag}{'-quick' if bench.quick else ''}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(f"  {os.path.relpath(path)}")
    return path


def report_times(
    bench: Bench, name: str, settings: Mapping[str, Any], times: Times, **found: Any
) -> None:
    """Print a table of sides with the ratios to jdd's, and write it."""
    print(f"\n{name}, {device()}, {os.cpu_count()} cores: {_words(settings)}")
    print(f"  {'':14}{'median s':>10}{'least':>10}{'most':>10}{'first call':>12}{'/ jdd':>8}")
    ratios = {}
    for side, samples in times.samples.items():
        ratios[side] = times.median(side) / times.median("jdd")
        columns = (times.median(side), min(samples), max(samples), times.first[side])
        print(f"  {side:14}" + "{:10.4g}{:10.4g}{:10.4g}{:12.3f}".format(*columns), end="")
        print(f"{ratios[side]:8.2f}")
    for key, value in found.items():
        print(f"  {key}: {_words(value) if isinstance(value, Mapping) else _word(value)}")
    report(
        bench,
        name,
        settings,
        median_s={side: times.median(side) for side in times.samples},
        ratio_to_jdd=ratios,
        first_call_s=times.first,
        samples_s=times.samples,
        **found,
    )


def device() -> str:
    """Return the kind of the device JAX found."""
    return jax.devices()[0].device_kind


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Return the versions of what the timings depend on."""
    found = {"python": platform.python_version()}
    for package in ("jdd", "jax", "jaxlib", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_word(value)}" for key, value in values.items())


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
