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

from jdd import __version__, specs, tasks
from jdd import report as html
from jdd.config import published
from jdd.config.rules import auto_depth
from jdd.data.pairs import PairDataset
from jdd.product import bytes as size
from jdd.report import diagnosis
from jdd.report.evidence import gather
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.stages import (
    distill,
    evaluate,
    full,
    label_stores,
    limits,
    phases,
    probe,
    protocol,
    quality,
    registry,
    scores,
    squeeze,
)
from jdd.stages.base import Estimate, Stage
from jdd.storage import json_files
from jdd.storage.files import write_text
from jdd.tasks import retrieval
from jdd.tasks.base import primary


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def device(context: RunContext) -> str:
    """Return a description of the devices, such as '1 x cpu (x86_64, 2 cores)'."""
    import os

    kind = context.devices[0].device_kind
    where = f" ({platform.machine()}, {os.cpu_count()} cores)" if kind == "cpu" else ""
    return f"{len(context.devices)} x {kind}{where}"


def commit() -> str | None:
    """Return the commit jdd runs from, with '-dirty' if modified; None outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    words = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):  # git is unavailable
        return None
    return done.stdout.strip() or None


def versions() -> dict[str, str]:
    """Return the versions of Python, jdd and the packages that affect its numbers."""
    own = {"jdd": __version__} | ({"commit": found} if (found := commit()) else {})
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    packages = {name: metadata.version(name) for name in names}
    return {**own, "python": platform.python_version(), **packages}


def result(context: RunContext, session: Session) -> dict[str, Any]:
    """Return the content of result.json."""
    accuracy, by_net = evaluate.results(context)
    by_net = {net: at | {"full": full.result(context, net)} for net, at in by_net.items()}
    first = context.load_set(context.seeds[0])
    recipe = first.recipe
    objective = tasks.named_objective(recipe)
    spec = context.config.spec
    title = specs.title(recipe["method"], spec)
    ours = recipe["method"] == context.config.method and recipe["ipc"] == context.config.ipc
    published_figure = (
        published.figure(context.config) if ours and objective["kind"] == "distill" else None
    )
    across = None
    if objective["kind"] == "distill":
        net, options = recipe["net"]["name"], recipe["net"].get("options") or {}
        own = {"width": 128, "norm": "instance", "depth": auto_depth(context.data.shape)}
        changed = any(value != own.get(name) for name, value in options.items())
        across = published.cross(
            recipe["method"], context.data.name, int(recipe["ipc"]), net, changed, spec
        )
    spent = {name: session.metrics.total(name) for name in lines(context)}
    measured = context.recall("measured")
    peak = max(peak_memory(), int(measured.get("process", 0)))
    context.remember("measured", "process", peak)
    # Only for a method outside the package: its title cannot be derived from its name.
    external_title = {} if title == specs.title(recipe["method"]) else {"title": title}
    return {
        "method": recipe["method"],
        **external_title,
        "dataset": context.data.name,
        "ipc": int(recipe["ipc"]),
        "seed": context.config.seed,
        "objective": objective,
        "bytes": size.of(first, label_stores.stored_bytes(context, recipe)).to_json(),
        **_measured(recipe, accuracy),
        **_candidates(context),
        **({"wrong_labels": recipe["wrong_labels"]} if "wrong_labels" in recipe else {}),
        "baselines": by_net[context.baseline_nets[0]],
        **({"baselines_by_net": by_net} if len(by_net) > 1 else {}),
        "teachers": squeeze.accuracies(context),
        "scores": scores.results(context),
        **({"quality": found} if (found := quality.results(context)) else {}),
        **({"protocol": found} if (found := protocol.results(context)) else {}),
        **({"probe": found} if (found := probe.chosen(context)) else {}),
        **_by_seed(context, "steps_back"),
        **_by_seed(context, "stopped"),
        "published": published_figure,
        "published_nets": across,
        "nets": evaluate.costs(context),
        "lr": first.lr,
        "steps": int(recipe["steps"]),
        "seconds": {name: seconds for name, seconds in spent.items() if seconds},
        "peak_memory_bytes": {
            "process": peak,
            "xla_temporaries": context.recall("temporaries"),
        },
        "device": device(context),
        "versions": versions(),
        "command": context.command,
        "notes": list(context.notes),
        "fingerprint": _fingerprint(context),
    }


def _measured(recipe: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics by net; under ``accuracy`` if that is the task's primary metric."""
    task = tasks.of(recipe)
    if primary(task) == "accuracy":
        return {"accuracy": found}
    own = {"task": task.name, "primary": primary(task)}
    return {"accuracy": {}, **own, "pairs": recipe.get("pairs"), "metrics": found}


def _by_seed(context: RunContext, entry: str) -> dict[str, Any]:
    """Return an entry of recipes by seed, of the sets that have it; {} if none has."""
    recipes = {str(seed): context.load_set(seed).recipe for seed in context.seeds}
    found = {seed: recipe[entry] for seed, recipe in recipes.items() if entry in recipe}
    return {entry: found} if found else {}


def _candidates(context: RunContext) -> dict[str, Any]:
    """Return how many images and captions a test of pairs ranks, and the recalls of chance."""
    if not isinstance(context.data, PairDataset):
        return {}
    test = context.data.test
    count = {"images": len(test.images), "captions": len(test.captions)}
    return {"candidates": count, "chance": retrieval.chance(test)}


def lines(context: RunContext) -> list[str]:
    """Return the names of all stages' lines in the metrics, in the order of the registry."""
    found: list[str] = []
    for entry in registry.STAGES:
        if entry.name == context.maker:
            found += phases.lines(context)
        if entry.name != STAGE.name and (entry.makes != "set" or entry.name == context.maker):
            found += registry.load(entry.module).lines(context)
    return found


def _fingerprint(context: RunContext) -> str:
    scored = [scores.results(context)] if context.config.scores else []
    if found := quality.results(context):
        scored.append(found)
    if found := protocol.results(context):
        scored.append(found)
    whole = [full.result(context, net) for net in context.baseline_nets]
    return fingerprint([evaluate.STAGE.fingerprint(context), *whole, *scored])


def _run(context: RunContext, session: Session) -> None:
    found = result(context, session)
    found |= {"limits": own} if (own := limits.measured(context, session)) else {}
    seen = gather(context.workdir)._replace(result=found)
    if limiting := diagnosis.sentences(seen):  # absent where nothing limits the result
        found["diagnosis"] = limiting
    text = json.dumps(found, indent=2) + "\n"
    write_text(context.workdir / "result.json", text, recorded=True)
    html.write(context.workdir)


def _done(context: RunContext) -> bool:
    path = context.workdir / "result.json"
    if not path.exists() or not (context.workdir / "report.html").exists():
        return False
    if not distill.STAGE.done(context) or not evaluate.STAGE.done(context):
        return False
    return (json_files.recall(path) or {}).get("fingerprint") == _fingerprint(context)


STAGE = Stage(
    name="report",
    fingerprint=_fingerprint,
    run=_run,
    estimate=lambda context: Estimate(1.0, 0, "report.html, result.json"),
    done=_done,
)
