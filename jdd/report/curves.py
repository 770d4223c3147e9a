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
_PAIRED = {"random": "random pairs", "full": "all pairs"}
# Learned rates: one, or one for each tower of pairs.
_RATES = {"Learned learning rate": ("lr",), "Learned learning rates": ("lr_image", "lr_text")}
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
    loss = _drawable(scalar_lines(evidence, "loss"))
    rates = [(_moved(scalar_lines(evidence, *names)), title) for title, names in _RATES.items()]
    three = bool(accuracy and loss and any(lines for lines, _ in rates))
    drawn = [(loss, "Loss"), *rates]
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


def _moved(lines: list[svg.Line]) -> list[svg.Line]:
    """Return the lines of learned rates, or none if none of them is a curve that moves."""
    return _drawable(lines) if any(np.ptp(line.y) > 0 for line in lines) else []


def _accuracy(evidence: Evidence, lines: list[svg.Line], three: bool) -> Chart:
    attacked = any(ATTACKED.keys() & row.keys() for row in evidence.rows)
    marks = [
        (f"{words} {percent(found.mean)}", found.mean)
        for name, words in (_PAIRED if evidence.retrieval else _REFERENCES).items()
        if not attacked and (found := evidence.baseline(name, evidence.net))
    ]
    metric = "mean recall" if evidence.retrieval else "test accuracy"
    drawing = svg.chart(
        lines,
        title=f"{metric.capitalize()} while distilling",
        x_label="step",
        y_label=f"{metric}, %",
        height=_HIGH if three else _HEIGHT,
        shares=True,
        marks=marks,
    )
    title = "Nets under attack" if attacked else "Accuracy of nets trained on the set"
    title = "Mean recall of towers trained on the pairs" if evidence.retrieval else title
    legend = [(f"m{at}", label) for at, (label, _) in enumerate(marks)]
    return Chart(title, _keys(lines), drawing, "tall" if three else "", legend)


def _scalar(lines: list[svg.Line], title: str, height: int) -> Chart:
    words = f"{title} while distilling"
    drawing = svg.chart(lines, title=words, x_label="step", y_label="", height=height)
    return Chart(title, _keys(lines), drawing, "")


def _keys(lines: list[svg.Line]) -> list[tuple[str, str]]:
    return [(line.css, line.label) for line in lines] if len(lines) > 1 else []
