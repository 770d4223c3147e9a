"""Accuracy, loss and learned learning rate over the steps, as SVG charts."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jdd.report import svg
from jdd.report.evidence import Evidence
from jdd.report.html import Html, percent
from jdd.report.training import (
    ATTACKED,
    RECOVERED,
    accuracy_lines,
    parts_drawn,
    recovers,
    scalar_lines,
)

_REFERENCES = {"random": "random images", "full": "whole training set"}
_HEIGHT, _HIGH, _LOW = 300, 436, 200  # of a chart; with three charts, one is next to the other two


class Chart(NamedTuple):
    """A drawing with its caption.

    ``keys`` are (CSS class, label) if it has several lines; ``marks`` those of lines to compare
    with.
    """

    title: str
    keys: list[tuple[str, str]]
    drawing: Html
    css: str
    marks: list[tuple[str, str]] = []


class Curves(NamedTuple):
    """The section's values; ``note`` names the drawn parts of a set made in parts."""

    title: str
    note: str
    charts: list[Chart]


def section(evidence: Evidence) -> Curves | None:
    """Return the logged curves; None if no line has two points."""
    accuracy = _drawable(accuracy_lines(evidence))
    loss, rate = (_drawable(scalar_lines(evidence, name)) for name in ("loss", "lr"))
    if rate and max(np.ptp(line.y) for line in rate) == 0:
        rate = []
    three = bool(accuracy and loss and rate)
    drawn = [(loss, "Loss"), (rate, "Learned learning rate")]
    note = parts_drawn(evidence)
    if note:
        drawn += [
            (_drawable(scalar_lines(evidence, name)), title) for name, title in RECOVERED.items()
        ]
    charts = [_accuracy(evidence, accuracy, three)] if accuracy else []
    charts += [_scalar(lines, title, _LOW if three else _HEIGHT) for lines, title in drawn if lines]
    if not charts:
        return None
    title = "While recovering" if any(map(recovers, evidence.rows)) else "While distilling"
    return Curves(title, note, charts)


def _drawable(lines: list[svg.Line]) -> list[svg.Line]:
    """Return the lines, or none if each is a single point, which is not a curve."""
    return lines if any(len(line.x) > 1 for line in lines) else []


def _accuracy(evidence: Evidence, lines: list[svg.Line], three: bool) -> Chart:
    attacked = any(ATTACKED.keys() & row.keys() for row in evidence.rows)
    marks = [
        (f"{words} {percent(found.mean)}", found.mean)
        for name, words in _REFERENCES.items()
        if not attacked and (found := evidence.baseline(name, evidence.net))
    ]
    drawing = svg.chart(
        lines,
        title="Test accuracy while distilling",
        x_label="step",
        y_label="test accuracy, %",
        height=_HIGH if three else _HEIGHT,
        shares=True,
        marks=marks,
    )
    title = "Nets under attack" if attacked else "Accuracy of nets trained on the set"
    legend = [(f"m{at}", label) for at, (label, _) in enumerate(marks)]
    return Chart(title, _keys(lines), drawing, "tall" if three else "", legend)


def _scalar(lines: list[svg.Line], title: str, height: int) -> Chart:
    words = f"{title} while distilling"
    drawing = svg.chart(lines, title=words, x_label="step", y_label="", height=height)
    return Chart(title, _keys(lines), drawing, "")


def _keys(lines: list[svg.Line]) -> list[tuple[str, str]]:
    return [(line.css, line.label) for line in lines] if len(lines) > 1 else []
