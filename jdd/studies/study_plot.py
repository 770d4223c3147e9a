"""A study's first figure against one of its keys, for its page: ``plot`` of the study file."""

from __future__ import annotations

import math

import numpy as np

from jdd.report import svg
from jdd.report.curves import Chart
from jdd.studies import study_metric
from jdd.studies.study_file import Study
from jdd.studies.study_tables import METRIC, Entry, Table, label

_COLOURS = 6  # s0 to s5 of the page


def build(study: Study, table: Table) -> Chart | None:
    """Return the chart, a line for each combination of the other keys; None without points.

    Bands are the table's spreads.
    """
    if not study.plot:
        return None
    lines: dict[str, list[tuple[float, Entry]]] = {}
    first = study.metrics[0]
    for (row, at), entry in table.entries.items():
        values = dict(zip(table.rows, table.row_values[row], strict=True))
        values |= dict(zip(table.columns, table.column_values[at], strict=True))
        if entry.metric != first or entry.mean is None:
            continue
        others = [key for key in values if key not in (study.plot, METRIC)]
        name = ", ".join(
            label(key, values[key]) if key == "method" else f"{key}={label(key, values[key])}"
            for key in others
        )
        lines.setdefault(name, []).append((float(values[study.plot]), entry))
    if not lines:
        return None
    drawn = [
        _line(name, points, f"s{at % _COLOURS}") for at, (name, points) in enumerate(lines.items())
    ]
    words = study_metric.words(first)
    drawing = svg.chart(
        drawn, title=f"{words} by {study.plot}", x_label=study.plot, y_label=words,
        shares=study_metric.is_share(first), point=study.plot,
    )  # fmt: skip
    keys = [(line.css, line.label) for line in drawn] if len(drawn) > 1 else []
    return Chart(f"{words[0].upper()}{words[1:]} by {study.plot}", keys, drawing, "")


def _line(name: str, points: list[tuple[float, Entry]], css: str) -> svg.Line:
    ordered = sorted(points, key=lambda point: point[0])
    x = np.asarray([at for at, _ in ordered])
    y = np.asarray([math.nan if e.mean is None else e.mean for _, e in ordered])
    spread = np.asarray([e.std or 0.0 for _, e in ordered])
    return svg.Line(name, x, y, y - spread, y + spread, css, dots=True)
