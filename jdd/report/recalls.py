"""Recall of every net and baseline in both directions: the table of a set of pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jdd.report.evidence import Evidence, Score, mapping, real, score
from jdd.report.html import DASH, THIN, mean_std, percent, plural

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
    if not evidence.retrieval or not evidence.scores:
        return None
    rows = [(f"This set, {net}", found) for net, found in evidence.scores.items()]
    for name, label in (("random", "Random real pairs"), ("full", "All pairs")):
        other = evidence.baseline(name)
        if other is not None:
            net = other.about.get("net")
            rows.append((f"{label}, {net}" if net else label, other))
    note = (
        "Percent of queries whose k nearest candidates hold a right one, "
        f"mean{THIN}±{THIN}population standard deviation over n nets. "
        f"{candidates(evidence)}The mean recall is that of all six."
    )
    heads = [*COLUMNS.values(), "Mean"]
    table = [(label, _figures(found)) for label, found in rows]
    best = {label: _best(found) for label, found in rows}
    tests = next((len(found["epochs"]) for found in best.values() if found), 0)
    if tests:
        heads.append(f"Best of {tests}")
        note += (
            f" Best of {tests}: each net's highest mean recall of {tests} tests on the test data."
        )
        table = [(label, [*own, _shown(best[label])]) for label, own in table]
    if evidence.chance:
        chance = [real(evidence.chance.get(name)) for name in (*COLUMNS, "recall")]
        figures = [DASH if one is None else percent(one) for one in chance]
        table.append(("Chance, a random ranking", figures + [DASH] * bool(tests)))
    return Recalls(note, heads, table)


def _best(found: Score) -> Mapping[str, Any]:
    """Return the summary of each net's best test; {} if the nets had one test."""
    return mapping(found.about, "best")


def _shown(found: Mapping[str, Any]) -> str:
    best = score(found)
    return mean_std(best.mean, best.std, best.n) if best else DASH


def candidates(evidence: Evidence) -> str:
    """Return how many candidates a query of each direction has, as a sentence and a space."""
    found = mapping(evidence.result, "candidates")
    images, captions = found.get("images"), found.get("captions")
    if not isinstance(images, int) or not isinstance(captions, int):
        return ""
    return (
        f"Image→text: each of {plural(images, 'test image')} is a query among "
        f"{plural(captions, 'test caption')}; text→image: each caption among the images. "
    )


def _figures(found: Score) -> list[str]:
    parts = [score(mapping(found.about, name)) for name in COLUMNS]
    return [mean_std(s.mean, s.std, s.n) if s else DASH for s in (*parts, found)]
