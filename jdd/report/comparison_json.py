"""``--mode=compare``: the page of several runs, its figures as JSON and as text."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jdd import __version__
from jdd.errors import BadInput
from jdd.report import (
    comparison_page,
    comparison_protocol,
    comparison_quality,
    plain,
    recalls,
    recipe,
    runs,
    training,
)
from jdd.report.curves import Chart
from jdd.report.evidence import Evidence, Score
from jdd.report.evidence import score as read_score
from jdd.report.html import THIN, duration, size
from jdd.report.runs import Found, Group, Run, Unlike
from jdd.storage import json_files
from jdd.storage.files import write_atomic

KIND = "jdd comparison"  # marks a JSON file as written here


def write(
    words: str | Iterable[str | os.PathLike[str]],
    to: str | os.PathLike[str],
    titles: Mapping[str, str] | None = None,
    plots: Sequence[Chart] = (),
) -> dict[str, Any]:
    """Compare the runs named by ``words``; write ``to`` (.html) and the .json of the same name.

    ``titles`` are names of runs by folder; the default is the end of their paths. ``plots`` come
    before the tables of the page.

    Returns the content of the JSON (accuracies as fractions), with the table for a terminal as
    ``summary``.

    Raises:
      BadInput: as in ``runs.find``; or ``to`` is not a valid page path, or is another file.
    """
    page = _place(Path(to))
    found = runs.find(words, titles)
    figures = as_json(found)
    text, numbers = (
        comparison_page.render(found, plots),
        json.dumps(figures, indent=2, allow_nan=False) + "\n",
    )
    write_atomic(page, lambda file: file.write(text.encode("utf-8")))
    write_atomic(page.with_suffix(".json"), lambda file: file.write(numbers.encode()))
    return {**figures, "summary": f"{in_words(found)}\n\nSide by side: {page}"}


def _place(page: Path) -> Path:
    """Return the page's path; refuse a path that is not writable or contains another file."""
    where = f"--to={page}"
    if page.suffix not in (".html", ".htm"):
        raise BadInput(where, "not a page", "a path that ends in .html")
    if not page.parent.is_dir() or not os.access(page.parent, os.W_OK):
        raise BadInput(where, f"{page.parent} cannot be written", "a folder that you may write")
    numbers = page.with_suffix(".json")
    for path in (page, numbers):
        if path.is_dir() or path.exists() and not _ours(numbers):
            raise BadInput(where, f"{path} is there and no comparison", "another --to")
    return page


def _ours(path: Path) -> bool:
    return (json_files.recall(path) or {}).get("kind") == KIND


def as_json(found: Found) -> dict[str, Any]:
    """Return the page's numbers; accuracies are fractions."""
    return {
        "kind": KIND,
        "jdd": __version__,
        "groups": [_group(group) for group in found.groups],
        "unfinished": [
            {"run": r.name, "folder": str(r.evidence.workdir), "reached": r.reached,
             **({"diverged": True} if r.diverged else {}), "missing": list(r.evidence.missing)}
            for r in found.unfinished
        ],
        "no_runs": list(found.passed),
    }  # fmt: skip


def _group(group: Group) -> dict[str, Any]:
    first = group.runs[0].evidence
    return {
        "dataset": first.known("dataset"),
        "ipc": int(first.known("ipc") or 0),
        **({"pairs": first.result.get("pairs")} if first.retrieval else {}),
        "title": group.title,
        "net": group.net,
        "runs": [_run(run) for run in group.runs],
        "differs": {one.what: _names(one) for one in group.unlike},
        "costs_differ": {one.what: _names(one) for one in group.slower},
    }


def _names(one: Unlike) -> dict[str, list[str]]:
    return {value: list(names) for value, names in one.values.items()}


def _run(run: Run) -> dict[str, Any]:
    evidence = run.evidence
    result = evidence.result
    kinds = ["random", "full"]
    kinds += [kind for kind in ("hard", "random_hard", "random_bytes") if evidence.baseline(kind)]
    baselines = {kind: _baseline(evidence, kind) for kind in kinds}
    return {
        "run": run.name,
        "folder": str(evidence.workdir),
        "method": evidence.known("method"),
        "steps": result.get("steps"),
        "asked_for_more": run.late,
        "seeds": evidence.seeds,
        **_figures(evidence),
        "baselines": baselines,
        "labels": recipe.labels(evidence),
        "teachers": evidence.teachers,
        "published": result.get("published"),
        **({"quality": result["quality"]} if result.get("quality") else {}),
        **({"protocol": result["protocol"]} if result.get("protocol") else {}),
        **({"bytes": result["bytes"]} if result.get("bytes") else {}),
        "seconds": training.seconds_of(evidence),
        "seconds_without_full": training.total_seconds(evidence),
        "peak_memory_bytes": result.get("peak_memory_bytes"),
        "device": result.get("device"),
        "versions": result.get("versions"),
        "command": evidence.known("command"),
        "missing": list(evidence.missing),
    }


def _figures(evidence: Evidence) -> dict[str, Any]:
    """Return the accuracy by net; of pairs the recall, with the six that it is the mean of."""
    found: dict[str, Any] = {net: _score(score) for net, score in evidence.scores.items()}
    if not evidence.retrieval:
        return {"accuracy": found}
    for net, one in evidence.scores.items():
        found[net] |= {name: _score(read_score(one.about.get(name))) for name in recalls.COLUMNS}
    chance = dict(evidence.chance)
    return {"recall": found, "candidates": evidence.result.get("candidates"), "chance": chance}


def _score(score: Score | None) -> dict[str, Any] | None:
    return score and {"mean": score.mean, "std": score.std, "n": score.n}


def _baseline(evidence: Evidence, kind: str) -> dict[str, Any] | None:
    """Return a baseline's figures, with its net if that is not the run's own."""
    score = evidence.baseline(kind, evidence.net) or evidence.baseline(kind)
    figures, other = _score(score), comparison_page.other_net(score, evidence.net)
    return figures and figures | ({"net": other} if other else {})


def in_words(found: Found) -> str:
    """Return the comparison as plain text: a table and the differences per group, then the rest."""
    parts = []
    for group in found.groups:
        lines = [
            f"{group.title} ({runs.metric(group).lower()} in %, mean ± std, n nets)",
            _table(group),
        ]
        figures = "recalls" if group.runs[0].evidence.retrieval else "accuracies"
        for word, unlike in ((figures, group.unlike), ("times", group.slower)):
            lines += [f"runs differ in ({word}) {_difference_line(one)}" for one in unlike]
        if comparison_page.teacher_labels_note(group):
            lines.append(comparison_page.teacher_labels_note(group))
        lines += comparison_page.collapses(group)
        if quality := comparison_quality.section(group):
            heads = ["run", "method", *quality.heads]
            rows = [[row.run or "-", row.method, *row.figures] for row in quality.rows]
            words = plain.table(heads, rows, left=2).replace(THIN, " ")
            lines.append(f"quality: {quality.note}".replace(THIN, " ") + f"\n{words}")
        parts.append("\n".join(lines))
    for ranking in comparison_protocol.rankings(found):
        heads = ["set", "run", *ranking.heads]
        rows = [[row.method, row.run or "-", *row.figures] for row in ranking.rows]
        words = plain.table(heads, rows, left=2).replace(THIN, " ")
        parts.append(f"{ranking.title}\n{ranking.note}\n{words}")
    if found.unfinished:
        lines = [
            f"{'diverged' if r.diverged else 'not finished'}: {r.name} ({r.reached})"
            for r in found.unfinished
        ]
        parts.append("\n".join(lines))
    if found.passed:
        parts.append(f"matched and no runs: {', '.join(found.passed)}")
    return "\n\n".join(parts)


def _difference_line(one: Unlike) -> str:
    return f"{one.what}: " + "; ".join(f"{v} [{', '.join(n)}]" for v, n in one.values.items())


def _table(group: Group) -> str:
    rows = []
    for run in group.runs:
        evidence = run.evidence
        seconds, memory = training.total_seconds(evidence), training.process_bytes(evidence)
        scores = [evidence.scores.get(net) for net in group.nets]
        published = evidence.baseline("published")
        figure = plain.accuracy(published.mean, published.std, 2) if published else "-"
        first, *others = map(_cell, scores)
        cells = [run.name, comparison_page.called(run), first]
        random = comparison_page.random_baseline(evidence, group.net)
        named = comparison_page.other_net(random, group.net)
        cells += [f"{_cell(random)} {named}".rstrip(), figure, *others]
        cells += [duration(seconds) if seconds else "-", size(memory) if memory else "-"]
        rows.append([cell.replace(THIN, " ") for cell in cells])
    net, *more = group.nets
    head = ["run", "method", net, "random", "published", *more, "time", "memory"]
    return plain.table(head, rows, left=2)


def _cell(score: Score | None) -> str:
    if score is None:
        return "-"
    return plain.accuracy(*score[:3]) + (f" ({score.n})" if score.n else "")
