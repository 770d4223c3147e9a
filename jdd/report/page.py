"""Put the sections of the report on one page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jdd.report import nets, pictures, recipe, results, scores, steps, training, use
from jdd.report.evidence import Evidence, gather
from jdd.report.html import Html, join, tag
from jdd.report.style import CSS
from jdd.storage.files import write_atomic

# Nothing may be fetched and nothing may run, whatever a class name or a command contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def write(workdir: str | os.PathLike) -> Path:
    """Write ``report.html`` into ``workdir`` from what the run has left there so far.

    Reads ``distilled.npz``, ``result.json``, ``metrics.jsonl`` and ``config.json``; what is not
    there yet is said on the page.

    Raises:
      BadInput: there is no such folder, or it cannot be written to.
    """
    text = render(gather(Path(workdir)))
    return write_atomic(Path(workdir) / "report.html", lambda f: f.write(text.encode("utf-8")))


def render(evidence: Evidence) -> str:
    """Return the page as text."""
    sections = [
        results.headline(evidence),
        _missing(evidence),
        pictures.wall(evidence),
        steps.table(evidence),
        results.comparison(evidence),
        training.curves(evidence),
        nets.table(evidence),
        scores.table(evidence),
        use.snippets(evidence),
        recipe.table(evidence),
        training.cost(evidence),
        use.command(evidence),
    ]
    return document(results.title(evidence), sections, use.footer(evidence))


def document(title: str, sections: Sequence[Html | None], footer: Html) -> str:
    """Return a page of ``sections``: its style in itself, nothing to load and nothing to run."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(CSS)),
    )
    body = tag("body", tag("main", *sections), footer)
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _missing(evidence: Evidence) -> Html | None:
    if not evidence.missing:
        return None
    lines = join(*(tag("p", line) for line in evidence.missing))
    return tag("aside", lines, cls="missing")
