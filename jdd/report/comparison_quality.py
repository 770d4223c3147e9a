"""The figures of generated images of several runs, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jdd.report import plain
from jdd.report.evidence import mapping
from jdd.report.generated import FIGURES, shown
from jdd.report.headline import method
from jdd.report.html import DASH, THIN, plural
from jdd.report.html import size as in_bytes
from jdd.report.runs import Group


class QualityRow(NamedTuple):
    """A generator's figures, in the order of ``Qualities.heads``."""

    method: str
    run: str
    figures: list[str]


class Qualities(NamedTuple):
    """Figures of generated images; ``note`` names n, k and the classifier, or says they differ."""

    note: str
    heads: list[str]
    rows: list[QualityRow]


def section(group: Group) -> Qualities | None:
    """Return the figures of the group's generators; None if there are none."""
    found = [(run, mapping(run.evidence.result, "quality")) for run in group.runs]
    found = [(run, figures) for run, figures in found if figures]
    if not found:
        return None
    kinds = {_measure(figures): None for _, figures in found}
    note = f"Of {next(iter(kinds))}."
    if len(kinds) > 1:
        each = "; ".join(f"{run.name}: {_measure(figures)}" for run, figures in found)
        note = f"Not comparable, since n, k or the classifier differ. {each}."
    storage = [mapping(figures, "storage") for _, figures in found]
    rows = [
        QualityRow(
            method(run.evidence) or "a set", run.name,
            [*(shown(name, figures.get(name)) for name in FIGURES), in_bytes(own.get("bytes", 0))],
        )
        for (run, figures), own in zip(found, storage, strict=True)
    ]  # fmt: skip
    tested = [mapping(figures, "test") for _, figures in found]
    if len(kinds) == 1:
        real = [*(shown(name, tested[0].get(name)) for name in FIGURES), DASH]
        rows.append(QualityRow("Real test images", "", real))
    return Qualities(note, [*(title for title, _ in FIGURES.values()), "Bytes"], rows)


def _measure(found: Mapping[str, Any]) -> str:
    """Return in words what figures are measured on, and in which features."""
    net = mapping(found, "classifier")
    return (
        f"{plural(int(found['n']), 'generated image')}, k{THIN}={THIN}{found['k']}, in features of "
        f"a {plain.classifier(net)}, weights {net.get('digest', '')}"
    )
