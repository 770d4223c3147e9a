"""Logged and measured data of a run: curves, seconds, bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdd.report import svg
from jdd.report.evidence import Evidence, mapping, real
from jdd.run import metrics
from jdd.stages.registry import MAKERS, position

ATTACKED = {"success": "attacked class taken for the target", "others": "other classes right"}
# Scalars logged during recovery, in addition to the loss.
RECOVERED = {"ce": "Cross entropy of the teacher (ce)", "bn": "Batch-norm statistics (bn)"}
COLOURS = 6  # s0 to s5 in the style sheet


def recovers(row: Mapping[str, Any]) -> bool:
    """Return whether a line of metrics.jsonl belongs to the recovery of images."""
    return _seed({"stage": metrics.stage_of_part(str(row["stage"]))}, "recover") is not None


def parts_drawn(evidence: Evidence) -> str:
    """Name the drawn part of a set recovered in parts, '' if it is recovered at once."""
    first, several = _made(evidence), _several(evidence)
    names = {str(row["stage"]) for row in evidence.rows if recovers(row)}
    parts = [name for name in names if metrics.stage_of_part(name) != name]
    if not parts:
        return ""
    one = next(iter(first))
    batches = one.removeprefix(metrics.stage_of_part(one))[1:].split("-")
    held = f"image batch{'es' * (len(batches) > 1)} {_listed(batches)}"
    of = len(parts) // max(1, len(set(map(metrics.stage_of_part, parts))))
    return (
        f"Images are recovered in {of} part{'s' * (of != 1)}; drawn is the first one"
        f"{' of each seed' * several}, {held}."
    )


def _listed(words: Sequence[str]) -> str:
    if len(words) > 4:
        return f"{words[0]} to {words[-1]}"
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def seconds_of(evidence: Evidence) -> dict[str, float]:
    """Return the seconds of each stage that ran, in their order.

    Results older than stages in parts lack the parts' seconds, which are then read from the lines.
    """
    recorded = mapping(evidence.result, "seconds")
    found = {name: s for name, value in recorded.items() if (s := real(value)) is not None}
    if not found:
        return {}
    parts: dict[str, float] = {}
    for row in evidence.rows:
        name, seconds = str(row["stage"]), real(row.get("seconds"))
        if metrics.stage_of_part(name) not in (name, *found) and seconds is not None:
            parts[name] = max(seconds, parts.get(name, 0.0))
    for name, seconds in parts.items():
        found[metrics.stage_of_part(name)] = found.get(metrics.stage_of_part(name), 0.0) + seconds
    return dict(sorted(found.items(), key=lambda item: position(item[0])))


def stall(evidence: Evidence, stage: str) -> str:
    """Return the fraction of a stage's time spent waiting for images or labels; '' if unknown."""
    stalls = [s for row in evidence.rows if row["stage"] == stage and (s := real(row.get("stall")))
            is not None]  # fmt: skip
    return f" ({100 * stalls[-1]:.1f} % waiting for input)" if stalls else ""


def stage_seconds(evidence: Evidence) -> dict[str, float]:
    """Return seconds by stage, summed over synthesis seeds and teachers."""
    found: dict[str, float] = {}
    for name, seconds in seconds_of(evidence).items():
        stage = name.partition("-")[0]
        found[stage] = found.get(stage, 0.0) + seconds
    return found


def process_bytes(evidence: Evidence) -> float | None:
    """Return the peak memory of the process, in bytes."""
    return real(mapping(evidence.result, "peak_memory_bytes").get("process"))


def temporaries(evidence: Evidence) -> dict[str, float]:
    """Return the bytes that XLA planned for each stage."""
    memory = mapping(mapping(evidence.result, "peak_memory_bytes"), "xla_temporaries")
    return {stage: n for stage, value in memory.items() if (n := real(value)) is not None}


def _whole(stage: str) -> bool:
    """Return whether a stage is the baseline on the whole training set, of any net."""
    return stage.partition("-")[0] == "full"


def total_seconds(evidence: Evidence) -> float | None:
    """Return the seconds of all stages except the full-data baseline, run once per dataset."""
    return sum(s for name, s in seconds_of(evidence).items() if not _whole(name)) or None


def _seed(row: Mapping[str, Any], stage: str) -> str | None:
    """Return '' for a line of ``stage``, the seed for a line of ``stage-s<seed>``, else None."""
    name = str(row["stage"])
    if name == stage:
        return ""
    return name.removeprefix(f"{stage}-s") if name.startswith(f"{stage}-s") else None


def _named(evidence: Evidence, seed: str, several: bool) -> str:
    return f"seed {seed or evidence.known('seed') or 0}" if several else ""


def _several(evidence: Evidence) -> bool:
    return any(_made(evidence).values())


def _made(evidence: Evidence) -> dict[str, str]:
    """Return the stages whose scalars are drawn, with their seeds ('' for the run's first one).

    For a set made in parts, the first part of each seed represents the others.
    """
    found: dict[str, str] = {}
    for name in dict.fromkeys(str(row["stage"]) for row in evidence.rows):
        for stage in MAKERS:
            seed = _seed({"stage": metrics.stage_of_part(name)}, stage)
            if seed is not None and seed not in found.values():
                found[name] = seed
    return found


def accuracy_lines(evidence: Evidence) -> list[svg.Line]:
    """Return one line per net and synthesis seed, with the std over nets as band."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    several = any(_seed(row, "curve") for row in evidence.rows)
    primary = str(evidence.result.get("primary", "accuracy"))
    for row in evidence.rows:
        seed = _seed(row, "curve")
        if seed is None or real(row["step"]) is None or real(row.get(primary)) is None:
            continue
        row = {**row, "accuracy": row[primary]}
        names = (str(row.get("net", evidence.net)), _named(evidence, seed, several))
        label = ", ".join(name for name in names if name)
        for measure, words in ATTACKED.items():
            if real(row.get(measure)) is not None:
                own = {**row, "accuracy": row[measure], "std": None}
                groups.setdefault(f"{label}: {words}", []).append(own)
        if not set(ATTACKED) & row.keys():
            groups.setdefault(label, []).append(row)
    lines = []
    for i, (name, rows) in enumerate(groups.items()):
        rows = sorted(rows, key=lambda row: row["step"])
        x, y = (np.asarray([float(row[k]) for row in rows]) for k in ("step", "accuracy"))
        # A single net has no std, whatever is recorded.
        spread = [0.0 if row.get("n") == 1 else real(row.get("std")) or 0.0 for row in rows]
        std = np.asarray(spread)
        low, high = (y - std, y + std) if std.any() else (None, None)
        lines.append(svg.Line(name, x, y, low, high, f"s{i % COLOURS}", len(x) <= 40))
    return lines


def scalars(evidence: Evidence, name: str) -> dict[str, list[tuple[float, float]]]:
    """Return (step, value) of a scalar logged during distillation, by synthesis seed ('': the
    run's first one).
    """
    found: dict[str, list[tuple[float, float]]] = {}
    made = _made(evidence)
    for row in evidence.rows:
        seed, step, value = made.get(str(row["stage"])), real(row["step"]), real(row.get(name))
        if seed is not None and step is not None and value is not None:
            found.setdefault(seed, []).append((step, value))
    return found


def scalar_lines(evidence: Evidence, *names: str) -> list[svg.Line]:
    """Return one line per synthesis seed of a scalar logged during distillation.

    Several names are lines of one chart, labelled by the end of the name: ``lr_image`` as image.
    """
    lines: list[svg.Line] = []
    several = _several(evidence)
    for name in names:
        own = name.rpartition("_")[2] if len(names) > 1 else ""
        for seed, points in scalars(evidence, name).items():
            x, y = zip(*sorted(points), strict=True)
            label = ", ".join(filter(None, (own, _named(evidence, seed, several))))
            lines.append(svg.thin(label, x, y, css=f"s{len(lines) % COLOURS}"))
    return lines
