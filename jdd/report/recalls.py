"""Recall of every net and baseline in both directions: the table of a set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jdd.report.evidence import Evidence, Score, mapping, score
from jdd.report.html import DASH, THIN, mean_std

# Metrics of the task retrieval, in the order of its columns.
COLUMNS = {
    "tr1": "image→text R@1", "tr5": "R@5", "tr10": "R@10",
    "ir1": "text→image R@1", "ir5": "R@5", "ir10": "R@10",
}  # fmt: skip


class Recalls(NamedTuple):
    """The section's values: ``rows`` are (name, figures in percent)."""

    note: str
    heads: list[str]
    rows: list[tuple[str, list[str]]]


def section(evidence: Evidence) -> Recalls | None:
    """Return the recalls; None for a task without recalls."""
    if evidence.result.get("task") != "retrieval":
        return None
    rows = [(f"This set, {net}", found) for net, found in evidence.scores.items()]
    for name, label in (("random", "Random real pairs"), ("full", "All pairs")):
        other = evidence.baseline(name)
        if other is not None:
            net = other.about.get("net")
            rows.append((f"{label}, {net}" if net else label, other))
    note = (
        f"Percent of queries whose k nearest candidates hold a right one, mean{THIN}±{THIN}"
        "population standard deviation: an image's captions (first three columns), and a caption's "
        "images. The mean recall is that of all six."
    )
    heads = [*COLUMNS.values(), "Mean"]
    figures = [(label, _figures(found)) for label, found in rows]
    tests = next((len(b["epochs"]) for _, found in rows if (b := _best(found))), 0)
    if tests:
        heads.append(f"Best of {tests}")
        note += (
            f" Best of {tests}: each net's highest mean recall of {tests} tests on the test data."
        )
        figures = [
            (label, [*own, _shown(_best(found))])
            for (label, own), (_, found) in zip(figures, rows, strict=True)
        ]
    return Recalls(note, heads, figures)


def _best(found: Score) -> Mapping[str, Any]:
    """Return the summary of each net's best test; {} if the nets had one test."""
    return mapping(found.about, "best")


def _shown(found: Mapping[str, Any]) -> str:
    best = score(found)
    return mean_std(best.mean, best.std, best.n) if best else DASH


def _figures(found: Score) -> list[str]:
    parts = [score(mapping(found.about, name)) for name in COLUMNS]
    return [mean_std(s.mean, s.std, s.n) if s else DASH for s in (*parts, found)]
