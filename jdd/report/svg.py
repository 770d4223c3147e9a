"""Line charts as inline SVG: axes, bands, reference lines; colours come from the page's CSS."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from jdd.report.html import Html, join, number, percent, tag

WIDTH = 480
LEFT, RIGHT, TOP, BOTTOM = 56, 22, 12, 40
POINTS = 240  # maximum points drawn along a line


class Line(NamedTuple):
    """One curve with an optional band around it; ``css`` names its colour (s0, s1, ...)."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    css: str = "s0"
    dots: bool = False


class Axis(NamedTuple):
    """Maps values to positions in the drawing; ``ticks`` are the labelled values."""

    place: Callable[[float], float]
    ticks: list[float]


def thin(label: str, x: Sequence[float], y: Sequence[float], css: str = "s0") -> Line:
    """Downsample a line: means over equal intervals, with their minimum and maximum as band."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    if len(xs) <= POINTS:
        return Line(label, xs, ys, css=css)
    parts = np.array_split(np.arange(len(xs)), POINTS)
    stretch = np.asarray([(xs[p].mean(), ys[p].mean(), ys[p].min(), ys[p].max()) for p in parts])
    stretch[0, 0], stretch[-1, 0] = xs[0], xs[-1]  # the curve spans the first to the last step
    x_mean, y_mean, low, high = stretch.T
    return Line(label, x_mean, y_mean, low, high, css)


def chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    height: int = 300,
    shares: bool = False,
    marks: Sequence[tuple[str, float]] = (),
    point: str = "step",
) -> Html:
    """Draw lines over a common x axis.

    Args:
      lines: at least one, each with at least one point; all values finite.
      title: for screen readers; x_label, y_label: shown below and above the axes.
      height: of the drawing, in its own units; its width is 480.
      shares: y are fractions, shown in percent on a linear axis.
      marks: (label, y) of horizontal lines to compare with, in the CSS classes m0, m1; their labels
        are in the legend next to the drawing, where no curve crosses them.
      point: what x is, in the words of a point.
    """
    values = np.concatenate(
        [v for line in lines for v in (line.y, line.low, line.high) if v is not None]
        + [np.asarray([y for _, y in marks], float)]
    )
    xs = np.concatenate([line.x for line in lines])
    bottom = height - BOTTOM
    log = not shares and values.min() > 0 and values.max() / values.min() > 20
    low, high = float(values.min()), float(values.max())
    if shares and high <= low:
        low, high = max(0.0, low - 0.1), min(1.0, high + 0.1)
    y_axis = (_log if log else _linear)(low, high, bottom, TOP + 16)
    # Steps start at 0 or 1; a curve that starts later (for example after a resume) is not shifted.
    x_axis = _linear(min(xs.min(), 0.0), xs.max(), LEFT, WIDTH - RIGHT, 76, nice=False)
    text = percent if shares else number
    places = 0 if log else max(0, -math.floor(math.log10(y_axis.ticks[1] - y_axis.ticks[0]) + 1e-9))

    def tick_label(y: float) -> str:
        if log:
            return number(y)
        return f"{100 * y:.{max(0, places - 2)}f}" if shares else f"{y:.{places}f}"

    parts = [
        tag("title", title),
        _frame(x_axis, y_axis, tick_label, height),
        tag("text", x_label, x=(LEFT + WIDTH - RIGHT) / 2, y=height - 4, cls="name middle"),
        tag("text", f"{y_label} (log scale)".strip() if log else y_label, x=4, y=TOP, cls="name"),
        *(_mark(label, y_axis.place(y), at) for at, (label, y) in enumerate(marks)),
        *(_line(line, x_axis, y_axis, text, point) for line in lines),
    ]
    box = f"0 0 {WIDTH} {height}"
    return tag("svg", *parts, viewBox=box, role="img", aria_label=title, cls="chart")


def _frame(x_axis: Axis, y_axis: Axis, tick_label: Callable[[float], str], height: int) -> Html:
    bottom, right = height - BOTTOM, WIDTH - RIGHT
    parts = []
    for y in y_axis.ticks:
        at = f"{y_axis.place(y):.1f}"
        parts.append(tag("line", x1=LEFT, x2=right, y1=at, y2=at, cls="grid"))
        parts.append(tag("text", tick_label(y), x=LEFT - 8, y=at, dy="0.32em", cls="end"))
    for x in x_axis.ticks:
        at = f"{x_axis.place(x):.1f}"
        parts.append(tag("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, cls="axis"))
        parts.append(tag("text", number(x), x=at, y=bottom + 18, cls="middle"))
    return join(*parts, tag("line", x1=LEFT, x2=right, y1=bottom, y2=bottom, cls="axis"))


def _mark(label: str, at: float, place: int) -> Html:
    ends = {"x1": LEFT, "x2": WIDTH - RIGHT, "y1": f"{at:.1f}", "y2": f"{at:.1f}"}
    return tag("line", tag("title", label), **ends, cls=f"mark m{place}")


def _line(line: Line, x_axis: Axis, y_axis: Axis, text: Callable[[float], str], point: str) -> Html:
    def points(ys: np.ndarray, xs: np.ndarray = line.x) -> str:
        return " ".join(
            f"{x_axis.place(x):.1f},{y_axis.place(y):.1f}" for x, y in zip(xs, ys, strict=True)
        )

    parts: list[object] = []
    if line.low is not None and line.high is not None:
        around = f"{points(line.high)} {points(line.low[::-1], line.x[::-1])}"
        parts.append(tag("polygon", points=around, cls="band"))
    if len(line.x) > 1:
        parts.append(tag("polyline", points=points(line.y), cls="line"))
    if line.dots or len(line.x) == 1:
        for x, y in zip(line.x, line.y, strict=True):
            tip = tag("title", f"{line.label} {text(y)} at {point} {number(x)}".strip())
            at = (f"{x_axis.place(x):.1f}", f"{y_axis.place(y):.1f}")
            parts.append(tag("circle", tip, cx=at[0], cy=at[1], r=3.2, cls="dot"))
    return tag("g", *parts, cls=line.css)


def _linear(
    low: float, high: float, start: float, end: float, apart: float = 40, nice: bool = True
) -> Axis:
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.5, high + (abs(high) or 1) * 0.5
    step = _step((high - low) / max(2, abs(end - start) / apart))
    if nice:
        low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first = math.ceil(low / step - 1e-9)
    ticks = [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(lambda v: start + (v - low) / (high - low) * (end - start), ticks)


def _log(low: float, high: float, start: float, end: float) -> Axis:
    first, last = math.log10(low), math.log10(high)
    pad = 0.04 * (last - first)
    first, last = first - pad, last + pad
    marks = (1,) if last - first > 2 else (1, 2, 5)
    decades = range(math.floor(first), math.ceil(last) + 1)
    ticks = [
        m * 10.0**d for d in decades for m in marks if first <= math.log10(m * 10.0**d) <= last
    ]
    return Axis(lambda v: start + (math.log10(v) - first) / (last - first) * (end - start), ticks)


def _step(rough: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is at least ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
