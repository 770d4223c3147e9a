"""The table of nets: every one that the set was tried on, and its single accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.report import steps
from jdd.report.evidence import Evidence, Score, mapping, real, score
from jdd.report.html import DASH, THIN, Html, duration, join, mean_std, percent, tag
from jdd.report.results import beside, place


def table(evidence: Evidence) -> Html | None:
    """Tabulate every net the set was tried on, each single accuracy as a dot."""
    scores = evidence.scores
    if not scores or steps.attacks(evidence):
        return None
    drawn = any(one.values for one in scores.values())
    costs = mapping(evidence.result, "nets")
    paper = mapping(evidence.result, "published_nets")
    printed = mapping(paper, "values")
    heads = ("Accuracy", "n", *["Published"] * bool(printed), *["Parameters", "Time"] * bool(costs))
    head = tag(
        "tr",
        tag("th", "Net"),
        *(tag("th", word, cls="num") for word in heads),
        tag("th", "Each net, 0 to 100 %", cls="strip") if drawn else None,
    )
    rows = []
    for name, about, found, css in _tried(evidence):
        figures = [mean_std(found.mean, found.std, found.n), str(found.n or DASH)]
        figures += [_printed(score(printed.get(name)))] * bool(printed)
        figures += _costs(mapping(costs, name)) if costs else []
        label = join(name, tag("small", f" {about}") if about else None)
        cells = [tag("td", label), *(tag("td", figure, cls="num") for figure in figures)]
        strip = tag("td", _strip(found), cls="strip") if drawn else None
        rows.append(tag("tr", *cells, strip, cls=css))
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    heading = "Across architectures" if len(scores) > 1 else "Net by net"
    note = f"Published: {paper.get('source')}." if printed else None
    return tag(
        "section",
        tag("h2", heading),
        tag("div", table, cls="scroll"),
        tag("p", note, cls="note after") if note else None,
        _by_seed(evidence),
    )


def _tried(evidence: Evidence) -> list[tuple[str, str, Score, str | None]]:
    """Return the rows of the table of nets: name, about it, accuracy, class."""
    made = mapping(evidence.recipe, "net").get("name")
    made_with = "" if evidence.chosen else "distilled with it"
    if evidence.stored:  # students learn from the teachers; the images come out of these
        made_with = "a teacher's architecture" if made in evidence.teachers else ""
    rows: list[tuple[str, str, Score, str | None]] = [
        (name, made_with if name == made else "", one, "ours" if name == made else None)
        for name, one in evidence.scores.items()
    ]
    for name, label in beside(evidence).items():
        found = evidence.baseline(name)
        if found is not None:
            rows.append((label, str(found.about.get("net") or ""), found, "base"))
    return rows


def _printed(found: Score | None) -> str:
    return mean_std(found.mean, found.std, 2) if found else DASH


def _costs(found: Mapping[str, Any]) -> list[str]:
    """Return a net's number of parameters, and the time that training and testing it took."""
    count, seconds = real(found.get("parameters")), real(found.get("seconds"))
    said = f"{count:,.0f}".replace(",", THIN) if count else DASH
    return [said, duration(seconds) if seconds is not None else DASH]


def _strip(score: Score) -> Html:
    dots = [tag("i", style=f"left:{place(v)}", title=percent(v)) for v in score.values]
    return tag("div", tag("u", style=f"left:{place(score.mean)}"), *dots, cls="dots")


def _by_seed(evidence: Evidence) -> Html | None:
    """Tabulate synthesis seeds apart: their spread says how repeatable the method is."""
    score = evidence.scores[evidence.net]
    if len(score.seeds) < 2:
        return None
    means = [one.mean for _, one in score.seeds]
    mean = sum(means) / len(means)
    std = (sum((m - mean) ** 2 for m in means) / len(means)) ** 0.5
    rows = [
        tag(
            "tr",
            tag("td", f"seed {name}"),
            tag("td", mean_std(*one[:3]), cls="num"),
            tag("td", one.n or DASH, cls="num"),
        )
        for name, one in score.seeds
    ]
    rows.append(
        tag(
            "tr",
            tag("td", "over seeds"),
            tag("td", mean_std(mean, std, len(means)), cls="num"),
            tag("td", len(means), cls="num"),
            cls="ours",
        )
    )
    head = tag(
        "tr",
        tag("th", f"{evidence.net}, each set {'chosen' if evidence.chosen else 'distilled'} anew"),
        tag("th", "Accuracy", cls="num"),
        tag("th", "n", cls="num"),
    )
    return tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), cls="scroll seeds")
