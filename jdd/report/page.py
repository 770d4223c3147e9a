"""The report of one run as a page: its sections, in order."""

from __future__ import annotations

import os
from pathlib import Path

from jdd.report import (
    accuracy,
    before_after,
    collapse,
    cost,
    curves,
    diagnosis,
    generated,
    headline,
    nets,
    pairs,
    pictures,
    protocol,
    recalls,
    recipe,
    scores,
    snippets,
)
from jdd.report.evidence import Evidence, gather
from jdd.report.templating import render as render_template
from jdd.storage.files import write_atomic


def write(workdir: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into ``workdir`` from the run's files there.

    Reads ``distilled.npz``, ``result.json``, ``metrics.jsonl`` and ``config.json``; the page lists
    the missing ones.

    Raises:
      BadInput: there is no such folder, or it cannot be written to.
    """
    text = render(gather(Path(workdir)))
    return write_atomic(Path(workdir) / "report.html", lambda f: f.write(text.encode("utf-8")))


def render(evidence: Evidence) -> str:
    """Return the page as HTML text."""
    return render_template(
        "report.html",
        title=headline.title(evidence),
        headline=headline.headline(evidence),
        missing=_remarks(evidence),
        images=pictures.section(evidence),
        pairs=pairs.section(evidence),
        before_after=before_after.section(evidence),
        accuracy=accuracy.section(evidence),
        recalls=recalls.section(evidence),
        metric=evidence.metric,
        curves=curves.section(evidence),
        generated=generated.section(evidence),
        nets=nets.section(evidence),
        protocol=protocol.section(evidence),
        scores=scores.section(evidence),
        snippets=snippets.snippets(evidence),
        recipe=recipe.table(evidence),
        cost=cost.section(evidence),
        command=evidence.known("command"),
        settings=snippets.settings(evidence),
        version=snippets.version(evidence),
    )


def _remarks(evidence: Evidence) -> list[str]:
    """Return the sentences at the top: what limits the result, and what is missing."""
    return [*collapse.sentences(evidence), *diagnosis.sentences(evidence), *evidence.missing]
