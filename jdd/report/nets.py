"""The table of nets: every evaluated architecture, with its individual accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdd.report import before_after
from jdd.report.accuracy import baselines
from jdd.report.evidence import Evidence, Score, mapping, real, score
from jdd.report.html import DASH, THIN, duration, mean_std

# Ways of testing batch norm (``training/recipe.py:NORMS``) in a head.
_NORMS = {
    "running": "running", "batch": "test batches", "set": "set", "real": "real images",
}  # fmt: skip


class Row(NamedTuple):
    """A net or baseline, its figures in the order of ``Nets.heads``, its drawn accuracy."""

    name: str
    about: str
    css: str
    figures: list[str]
    score: Score


class Seed(NamedTuple):
    """Accuracy on the set of one synthesis seed, or over all of them."""

    name: str
    value: str
    n: str
    css: str = ""


class Nets(NamedTuple):
    """The section's values; ``drawn``: whether individual accuracies are drawn as dots."""

    heading: str
    heads: list[str]
    rows: list[Row]
    drawn: bool
    note: str
    seeds_of: str
    seeds: list[Seed]


def section(evidence: Evidence) -> Nets | None:
    """Return every net the set was evaluated on; None if there was no evaluation."""
    scores = evidence.scores
    if not scores or before_after.attacks(evidence):
        return None
    costs = mapping(evidence.result, "nets")
    paper = mapping(evidence.result, "published_nets")
    printed = mapping(paper, "values")
    evaluated = _evaluated(evidence)
    ways = normed([one.about for *_, one in evaluated])
    heads = ["Mean recall" if evidence.retrieval else "Accuracy", "n", *ways.values()]
    heads += ["Published"] * bool(printed) + ["Parameters", "Time"] * bool(costs)
    rows = []
    for name, about, css, found in evaluated:
        figures = [mean_std(found.mean, found.std, found.n), str(found.n or DASH)]
        figures += [_figure(score(found.about.get(way))) for way in ways]
        figures += [_published(score(printed.get(name)))] * bool(printed)
        figures += _costs(mapping(costs, name)) if costs else []
        rows.append(Row(name, about, css, figures, found))
    made = "chosen" if evidence.chosen else "distilled"
    return Nets(
        heading="Cross-architecture" if len(scores) > 1 else "The evaluated net",
        heads=heads,
        rows=rows,
        drawn=any(one.values for one in scores.values()),
        note=f"Published: {paper.get('source')}." if printed else "",
        seeds_of=f"{evidence.net}, each set {made} anew",
        seeds=_by_seed(evidence),
    )


def _evaluated(evidence: Evidence) -> list[tuple[str, str, str, Score]]:
    """Return (name, about it, CSS class, accuracy) of the nets, then of the baselines."""
    made = mapping(evidence.recipe, "net").get("name")
    made_with = "" if evidence.chosen else "distilled with it"
    if evidence.stored:  # students learn from the teachers, from which the images are recovered
        made_with = "a teacher's architecture" if made in evidence.teachers else ""
    rows = [
        (name, made_with if name == made else "", "ours" if name == made else "", one)
        for name, one in evidence.scores.items()
    ]
    for net in evidence.baseline_nets:
        for name, label in baselines(evidence).items():
            found = evidence.baseline(name, net)
            if found is not None:
                rows.append((label, str(found.about.get("net") or ""), "base", found))
    return rows


def normed(found: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the accuracies by several ways of testing batch norm that are in some results.

    Their names there, with the head of a column.
    """
    names = {f"bn_{way}": f"Batch norm: {words}" for way, words in _NORMS.items()}
    return {name: words for name, words in names.items() if any(name in one for one in found)}


def _figure(found: Score | None) -> str:
    return mean_std(found.mean, found.std, found.n) if found else DASH


def _published(found: Score | None) -> str:
    return mean_std(found.mean, found.std, 2) if found else DASH


def _costs(found: Mapping[str, Any]) -> list[str]:
    """Return a net's number of parameters, and the time of its training and test."""
    count, seconds = real(found.get("parameters")), real(found.get("seconds"))
    words = f"{count:,.0f}".replace(",", THIN) if count else DASH
    return [words, duration(seconds) if seconds is not None else DASH]


def _by_seed(evidence: Evidence) -> list[Seed]:
    """Return the accuracy by synthesis seed, then that of all nets, as in the headline."""
    score = evidence.scores[evidence.net]
    found = score.seeds
    if len(found) < 2:
        return []
    rows = [
        Seed(f"seed {name}", mean_std(one.mean, one.std, one.n), str(one.n or DASH))
        for name, one in found
    ]
    whole = mean_std(score.mean, score.std, score.n)
    return [*rows, Seed("all seeds", whole, str(score.n or DASH), "ours")]
