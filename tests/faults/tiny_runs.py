"""Tiny runs of every method, each command a process of its own; and all that one leaves.

Every run has a folder with its data, its working directory ``run`` and its cache. Compiled programs
are shared by all of them.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jdd
from jdd import config, specs
from tests import test_products_run
from tests.faults import injected
from tests.methods import test_d4m, test_gan, test_pair_coresets, test_priors, test_shared_suite
from tests.pins import cases, left

ROOT = Path(jdd.__file__).parents[1]
Keys = dict[str, Any]
PAIRED = test_pair_coresets.KEYS
# Of methods that are not pinned, in addition to the base of the pinned ones.
OWN: dict[str, Keys] = {
    "d4m": {k: v for k, v in test_d4m.OWN.items() if k != "method"},
    "diffusion": test_priors.DIFFUSED,
    "dim": test_gan.KEYS["dim"],
    "edc": test_shared_suite.KEYS["edc"] | {"ipc": 2, "image_batch": 6, "eval.n": 1},
    "el2n": cases.CHOSEN,
    "gan": test_gan.KEYS["gan"],
    "gaussian": test_products_run.KEYS["generator"] | {"steps": 0},
    "herding_pairs": PAIRED,
    "kcenter_pairs": PAIRED,
    "ncfm": test_shared_suite.KEYS["ncfm"] | cases.EXPERTS,
    "random_pairs": test_products_run.KEYS["pairs"],
    "vae": test_priors.TINY,
    **{name: test_shared_suite.KEYS[name] | {"steps": 4} for name in ("lors", "vl")},
    "covmatch": {
        key: value
        for key, value in (test_shared_suite.KEYS["covmatch"] | {"steps": 4}).items()
        if not key.startswith("experts.")
    },
}
# Stages and forms of labels that no method's own case has.
MORE: dict[str, tuple[str, Keys]] = {
    "probe": ("dm", {"steps": 100, "lr_img": None, "log_every": 20, "checkpoint_every": 30}),
    "scores": ("dm", {"scores": True, "runs": 1}),
    "protocol": ("random", {"eval.protocol": "common-small", "runs": 1, "baselines.full": False}),
    "labels-static": ("rded", {"relabel.mode": "static"}),
    "labels-map": (
        "rded",
        {
            "relabel.mode": "map",
            "relabel.k": 2,
            "squeeze.nets": "WRN16_2",
            "squeeze.batch": 4,
            "squeeze.lr": 0.05,
        },
    ),
}
NAMES = (*specs.names(), *MORE)
MEASURED = ("peak_memory_bytes", "versions")  # of a result: the memory and the checkout
EPOCH = "loss of an epoch"
TIMED = ("-seconds.json", "measured.json", "temporaries.json")


class Ended(NamedTuple):
    """How a command has ended: its exit code, what it printed, and its seconds in ``run``."""

    code: int
    out: str
    err: str
    seconds: float


def keys(name: str) -> tuple[str, Keys]:
    """Return the config of a run, as --config names it, and its keys."""
    method, more = MORE.get(name, (name, {}))
    own = cases.CASES[method].keys if method in cases.CASES else OWN[method]
    paired = specs.get(method).task == "retrieval"
    base = {"progress": False, "devices": 1} if paired else cases.BASE
    data = "digits_captions" if paired else "toy"
    known = config.schema(method)
    found = {k: v for k, v in {**base, **own, **more}.items() if k in known and v is not None}
    return f"{method}:{data}", found


def arguments(name: str) -> list[str]:
    """Return the words of a run's command, after the program's name."""
    spec, found = keys(name)
    return [f"--config={spec}", "--workdir=run", *(f"--config.{k}={v}" for k, v in found.items())]


def folder(place: Path) -> Path:
    """Make the folder of a run, with its data."""
    place.mkdir(parents=True)
    cases.toy(place / "toy.npz")
    os.utime(place / "toy.npz", (1e9, 1e9))
    return place


def start(
    place: Path, words: list[str], fault: str = "note", number: int = 0
) -> subprocess.Popen[str]:
    """Start a command in a run's folder, with a fault of ``injected``."""
    own = {"PYTHONPATH": str(ROOT), "JDD_CACHE": str(place / "cache")}
    notes = {injected.NOTES: str(place.with_suffix(".moments"))} if fault == "note" else {}
    line = [sys.executable, "-m", "tests.faults.injected", fault, str(number), *words]
    return subprocess.Popen(
        line, cwd=place, env=os.environ | own | notes, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended(child: subprocess.Popen[str], place: Path, stop: float = 0.0) -> Ended:
    """Wait for a command; with ``stop``, kill it so many seconds after it began to write."""
    while child.poll() is None and not (place / "run").exists():
        time.sleep(0.01)
    begun = time.monotonic()
    try:
        out, err = child.communicate(timeout=stop or 600)
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        assert stop, f"a tiny run took more than 600 s\n{out}\n{err}"
    return Ended(child.returncode, out, err, time.monotonic() - begun)


class Undisturbed(NamedTuple):
    """A run without a fault: its command, its moments' paths in its folder, what it leaves."""

    words: list[str]
    moments: list[str]
    left: dict[str, Any]
    seconds: float


def undisturbed(place: Path, name: str, more: Sequence[str] = ()) -> Undisturbed:
    """Make a run without a fault in ``place``, with ``more`` words in its command."""
    words = [*arguments(name), *more]
    found = ended(start(folder(place), words), place)
    assert found.code == 0 and found.err == "", f"{name}: {found.err}"
    lines = place.with_suffix(".moments").read_text(encoding="utf-8").splitlines()
    moments = [os.path.relpath(line, place) for line in lines]
    return Undisturbed(words, moments, traces(place / "run"), found.seconds)


def again(place: Path, whole: Undisturbed) -> str:
    """Give a run's command once more; return what differs from the undisturbed run, '' if nothing.

    Raises:
      AssertionError: the command fails, or prints an error.
    """
    found = ended(start(place, whole.words, "none"), place)
    assert found.code == 0 and found.err == "", f"exit code {found.code}: {found.err}"
    return difference(whole.left, traces(place / "run"))


def traces(run: Path) -> dict[str, Any]:
    """Return all that a run leaves, without times: files, arrays, metrics, figures, its result."""
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax misses a file that no item has
    found = left.read(run)
    remembered = {
        path.name: json.loads(path.read_text(encoding="utf-8"))
        for path in (run / "checkpoints").glob("*.json")
        if not path.name.endswith(TIMED)
    }
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = sorted((json.loads(line) for line in lines), key=lambda row: (row["stage"], row["step"]))
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    parts = [path for path in run.rglob("*") if ".part" in path.name or "tmp" in path.name]
    return {
        "files": found.same["files"],
        "left over": sorted(path.name for path in parts),
        "bits": found.exact,
        "figures": timeless(remembered),
        "rows": {f"{row['stage']} {row['step']}": timeless(_rounded(row)) for row in rows},
        "result": timeless({k: v for k, v in result.items() if k not in MEASURED}),
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    """Mark the mean loss of an epoch of nets: it is summed over pieces whose length follows from
    the time they take, so it is equal to rounding alone. The nets are equal to the bit.
    """
    return {EPOCH if k == "loss" and "epoch" in row else k: v for k, v in row.items()}


def timeless(value: Any) -> Any:
    """Return figures without times."""
    if isinstance(value, dict):
        timed = ("seconds", "stall", "waited")
        return {k: timeless(v) for k, v in value.items() if k not in timed}
    return [timeless(one) for one in value] if isinstance(value, list) else value


def difference(a: Any, b: Any, where: str = "") -> str:
    """Return in words where two traces differ; '' if they are equal."""
    if isinstance(a, dict) and isinstance(b, dict):
        lost, new = sorted(a.keys() - b.keys()), sorted(b.keys() - a.keys())
        found = [f"{where}: without {lost}"] * bool(lost) + [f"{where}: and {new}"] * bool(new)
        found += [difference(a[k], b[k], f"{where}/{k}") for k in a.keys() & b.keys()]
        return "; ".join(filter(None, found))
    if isinstance(a, list) and isinstance(b, list) and (lost := [x for x in a if x not in b]):
        return f"{where}: without {lost}"
    if isinstance(a, list) and isinstance(b, list) and (new := [x for x in b if x not in a]):
        return f"{where}: and {new}"
    equal = a == b or a != a and b != b
    if where.endswith(f"/{EPOCH}"):
        equal = math.isclose(a, b, rel_tol=1e-6)
    return "" if equal else f"{where}: {a} became {b}"


if __name__ == "__main__":
    for one in sys.argv[1:] or NAMES:
        with tempfile.TemporaryDirectory() as scratch:
            made = undisturbed(Path(scratch) / "run", one)
            print(f"{one:14} {made.seconds:5.1f} s, {len(made.moments)} moments", flush=True)
