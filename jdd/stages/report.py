"""Stage ``report``: result.json for programs, report.html for people."""

from __future__ import annotations

import json
import platform
import resource
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from jdd import __version__, published
from jdd import report as html
from jdd.depth import auto_depth
from jdd.evaluation import aims
from jdd.files import write_atomic
from jdd.session import Session
from jdd.stages import distill, evaluate, full, scores, squeeze
from jdd.stages.base import Estimate, Stage
from jdd.work import Work, fingerprint


def peak_memory() -> int:
    """Return the most memory this process has held, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device(work: Work) -> str:
    """Return the devices in words, such as '1 x cpu (x86_64, 2 cores)'."""
    import os

    kind = work.devices[0].device_kind
    where = f" ({platform.machine()}, {os.cpu_count()} cores)" if kind == "cpu" else ""
    return f"{len(work.devices)} x {kind}{where}"


def commit() -> str | None:
    """Return the commit that jdd runs from, '-dirty' if changed; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # no git here
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    """Return the versions of Python, jdd and the packages that shape its numbers."""
    own = {"jdd": __version__} | ({"commit": found} if (found := commit()) else {})
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    packages = {name: metadata.version(name) for name in names}
    return {**own, "python": platform.python_version(), **packages}


def result(work: Work, session: Session) -> dict[str, Any]:
    """Return what result.json holds."""
    accuracy, beside = evaluate.results(work)
    first = work.load_set(work.seeds[0])
    recipe = first.recipe
    aim = aims.named(recipe)
    ours = recipe["method"] == work.config.method and recipe["ipc"] == work.config.ipc
    printed = published.figure(work.config) if ours and aim["kind"] == "distill" else None
    across = None
    if aim["kind"] == "distill":
        net, options = recipe["net"]["name"], recipe["net"].get("options") or {}
        own = {"width": 128, "norm": "instance", "depth": auto_depth(work.data.shape)}
        changed = any(value != own.get(name) for name, value in options.items())
        across = published.cross(recipe["method"], work.data.name, int(recipe["ipc"]), net, changed)
    teachers = [f"squeeze-{teacher.word}" for teacher in work.teachers]
    made = [work.stage(seed) for seed in work.seeds]
    stages = ["experts", *teachers, *made, "relabel", "evaluate", "full", "scores"]
    spent = {stage: session.metrics.total(stage) for stage in stages}
    measured = work.recall("measured")
    peak = max(peak_memory(), int(measured.get("process", 0)))
    work.remember("measured", "process", peak)
    return {
        "method": recipe["method"],
        "dataset": work.data.name,
        "ipc": int(recipe["ipc"]),
        "seed": int(work.config.seed),
        "objective": aim,
        "accuracy": accuracy,
        "baselines": {**beside, "full": full.result(work)},
        "teachers": squeeze.accuracies(work),
        "scores": scores.results(work),
        "published": printed,
        "published_nets": across,
        "nets": evaluate.costs(work),
        "lr": first.lr,
        "steps": int(recipe["steps"]),
        "seconds": {name: seconds for name, seconds in spent.items() if seconds},
        "peak_memory_bytes": {
            "process": peak,
            "xla_temporaries": work.recall("temporaries"),
        },
        "device": device(work),
        "versions": versions(),
        "command": work.command,
        "notes": list(work.notes),
        "fingerprint": _fingerprint(work),
    }


def _fingerprint(work: Work) -> str:
    scored = [scores.results(work)] if work.config.scores else []
    return fingerprint([evaluate.STAGE.fingerprint(work), full.result(work), *scored])


def _run(work: Work, session: Session) -> None:
    text = json.dumps(result(work, session), indent=2) + "\n"
    write_atomic(work.workdir / "result.json", lambda file: file.write(text.encode()))
    html.write(work.workdir)


def _done(work: Work) -> bool:
    path = work.workdir / "result.json"
    if not path.exists() or not (work.workdir / "report.html").exists():
        return False
    if not distill.STAGE.done(work) or not evaluate.STAGE.done(work):
        return False
    try:
        return json.loads(path.read_text(encoding="utf-8"))["fingerprint"] == _fingerprint(work)
    except (ValueError, KeyError):
        return False


STAGE = Stage(
    name="report",
    inputs=("evaluate",),
    fingerprint=_fingerprint,
    run=_run,
    estimate=lambda work: Estimate(1.0, 0, "report.html, result.json"),
    done=_done,
)
