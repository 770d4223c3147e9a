"""The pins on disk, the environment that their bits belong to, and what differs from them.

pins.json     what no machine changes, by case
exact.json    SHA-256 by environment and case: processor, packages, XLA's flags
golden.npz    arrays of the distilled sets, for environments that exact.json does not have
halfway/      working directories that the code of commit b19b6ff was stopped in, by case; in
              made.json the environment whose bits they hold
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tests.pins import cases
from tests.pins.observe import HALFWAY, STOPPED

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PINS, EXACT, GOLDEN = HERE / "pins.json", HERE / "exact.json", HERE / "golden.npz"
STOPPED_BY = HALFWAY / "made.json"

# The default suite's flags, and those of the slow one: two environments of one machine.
QUICK, FULL = "--xla_backend_optimization_level=0", ""

# Where each run that is resumed was stopped: once this path was complete.
STOPS = {
    "mtt": "checkpoints/distill/2",
    "dc": "checkpoints/distill/2",
    "frepo": "checkpoints/distill/2",
    "sre2l": "checkpoints/recover-1/2",  # teacher, part 0 and half of part 1 of three
}
JOBS = (*cases.CASES, *(f"{name}{STOPPED}" for name in STOPS))

_PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "flax", "optax")
# Instruction sets that XLA, Eigen and BLAS choose code by.
_ISA = re.compile(r"^(sse|ssse|avx|amx|fma|f16c|bmi|sve|asimd|neon)")


def environment(flags: str) -> dict[str, str]:
    """Return all that the bits of a float may depend on, but for the code."""
    return {
        "processor": _processor(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        **{name: metadata.version(name) for name in _PACKAGES},
        "XLA_FLAGS": flags,
    }


def _processor() -> str:
    words: dict[str, str] = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
        words = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    model = [words.get(k, "") for k in ("vendor_id", "cpu family", "model", "CPU part")]
    isa = sorted(w for w in words.get("flags", words.get("Features", "")).split() if _ISA.match(w))
    digest = hashlib.sha256(" ".join(isa).encode()).hexdigest()[:8]
    return " ".join([platform.machine(), *filter(None, model), f"isa-{digest}"])


def key(flags: str) -> str:
    """Return the name of the environment in exact.json."""
    text = json.dumps(environment(flags), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def start(root: Path, flags: str, *words: str) -> subprocess.Popen[str]:
    """Start ``python -m WORDS`` with this process' packages and nothing else of its settings."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_", "JDD_"))}
    env |= {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "PYTHONPATH": str(ROOT),
        "JDD_CACHE": str(root / "cache"),
        # Cases share programs: each is compiled once.
        "JAX_COMPILATION_CACHE_DIR": str(root / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
    }
    words = (sys.executable, "-m", *words)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(words, cwd=ROOT, env=env, text=True, **pipes)


def observe(root: Path, jobs: Sequence[str], flags: str) -> dict[str, dict[str, Any]]:
    """Run jobs in two processes of their own; return what each has left, ``floats`` among it."""
    halves = [half for half in (jobs[::2], jobs[1::2]) if half]
    running = [start(root, flags, "tests.pins.observe", str(root), *half) for half in halves]
    for process in running:
        output = process.communicate()[0]
        if process.returncode:
            raise RuntimeError(f"tests.pins.observe: exit code {process.returncode}\n{output}")
    found = {}
    for job in jobs:
        found[job] = json.loads((root / job / "left.json").read_text(encoding="utf-8"))
        if "failed" not in found[job]:
            with np.load(root / job / "floats.npz") as arrays:
                found[job]["floats"] = dict(arrays)
    return found


def read(path: Path) -> dict[str, Any]:
    """Return the JSON of a pins' file, {} if there is none."""
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def golden() -> dict[str, np.ndarray]:
    """Return the pinned arrays, ``case/file/array``."""
    if not GOLDEN.exists():
        return {}
    with np.load(GOLDEN) as arrays:
        return dict(arrays)


def changes(pinned: Any, found: Any) -> str:
    """Return what differs between two values as lines of JSON, '' for nothing."""
    before, after = (json.dumps(one, indent=1).splitlines() for one in (pinned, found))
    return "\n".join(difflib.unified_diff(before, after, "pinned", "now", lineterm="", n=2))


def far(pinned: np.ndarray, found: np.ndarray, rounding: float) -> str:
    """Return how far an array is from the pinned one, '' where ``rounding`` explains it.

    One entry in fifty is let off: a last bit can decide a pixel's level, or the sign of its slope.
    """
    if pinned.shape != found.shape:
        return f"shape {list(found.shape)}, pinned {list(pinned.shape)}"
    apart = np.abs(pinned - found) / np.maximum(np.abs(pinned).max(), 1e-6)
    most, mean = float(np.quantile(apart, 0.98)), float(apart.mean())
    near = most <= rounding and mean <= rounding  # NaN is not
    return "" if near else f"off by {most:.2g}, {mean:.2g} in the mean; {rounding:.2g} is allowed"
