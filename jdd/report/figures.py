"""Figures for papers, drawn by matplotlib from the report's numbers.

Figures use no pyplot, no global state and no matplotlib settings of the user. Colours are those of
Okabe and Ito, distinct for colour-blind readers. Lines also differ in their markers and bars in
their hatching, so figures remain legible in grey.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import numpy as np

from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.report import accuracy, image_grid
from jdd.report.accuracy import Bar
from jdd.report.evidence import Evidence, real
from jdd.report.image_grid import WIDTH
from jdd.report.svg import Line
from jdd.report.training import ATTACKED, accuracy_lines

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.container import ErrorbarContainer
    from matplotlib.figure import Figure

TILE = 64  # minimum pixels of the shorter side of an image in the grid
SETTINGS: dict[str, object] = {
    "font.family": "DejaVu Sans",  # bundled with matplotlib: the same on every machine
    "font.size": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "hatch.linewidth": 0.5,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called '$'
    "pdf.fonttype": 42,  # TrueType: text remains text, as publishers require
    "savefig.dpi": 300,
}
_BLUE, _VERMILION, _GREY, _INK = "#0072B2", "#D55E00", "#A6A6A6", "#000000"
_LINES = (_VERMILION, _BLUE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKERS = "osD^vP"
# Horizontal and vertical alignment of a caption, by the side of its tiles.
_ALIGNED = {"top": ("center", "bottom"), "bottom": ("center", "top"), "left": ("right", "center")}
_REFERENCES = {"random": ("Random real images", ":"), "full": ("Whole training set", "--")}
_PAIRED = {"random": ("Random real pairs", ":"), "full": ("All pairs", "--")}


def curve_points(evidence: Evidence) -> list[Line]:
    """Return the accuracy curves of the report; empty if none has two points."""
    lines = accuracy_lines(evidence)
    return lines if any(len(line.x) > 1 for line in lines) else []


def measured(evidence: Evidence) -> list[Bar]:
    """Return the bars of the report that have a value; empty if the report draws none."""
    found = accuracy.section(evidence)
    return [bar for bar in found.bars if bar.score] if found else []


def curve(evidence: Evidence) -> Figure:
    """Draw test accuracy over distillation steps, mean and standard deviation over n nets.

    Dashed and dotted lines are the means of the measured baselines.
    """
    figure, axes = axes_of(2.3)
    attacked = any(ATTACKED.keys() & row.keys() for row in evidence.rows)
    n = _nets_a_point(evidence)
    handles: list[Artist | ErrorbarContainer] = [
        _errorbars(axes, line, at, f"{line.label or evidence.net}{f' (n = {n})' if n else ''}")
        for at, line in enumerate(curve_points(evidence))
    ]
    references = _PAIRED if evidence.retrieval else _REFERENCES
    for name, (label, style) in references.items():
        found = None if attacked else evidence.baseline(name, evidence.net)
        if found is not None:
            words = f"{label}{f' (n = {found.n})' if found.n else ''}"
            at = 100 * found.mean
            handles.append(axes.axhline(at, label=words, color=_INK, linestyle=style, linewidth=1))
    axes.set_xlabel("Distillation step")
    axes.set_ylabel("Share of test images (%)" if attacked else _metric(evidence))
    axes.locator_params("y", nbins=6, steps=[1, 2, 5, 10])
    # Above the axes, so that it hides no data.
    columns = 1 if attacked or len(handles) == 1 else 2
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, handlelength=1.8,
        columnspacing=1.2,
    )  # fmt: skip
    return figure


def _errorbars(axes: Axes, line: Line, at: int, label: str) -> ErrorbarContainer:
    """Draw one curve with error bars, or with a band if the points are too dense for them."""
    x, y, dense = line.x, 100 * line.y, len(line.x) > 20
    spread = None if line.low is None else 100 * (line.y - line.low)
    colour = _LINES[at % len(_LINES)]
    if dense and spread is not None:
        axes.fill_between(x, y - spread, y + spread, color=colour, alpha=0.2, linewidth=0)
    return axes.errorbar(
        x, y, yerr=None if dense else spread, label=label, color=colour, linewidth=1.2,
        marker="" if dense else _MARKERS[at % len(_MARKERS)], markersize=3.2, capsize=2,
        elinewidth=0.8, capthick=0.8,
    )  # fmt: skip


def comparison(evidence: Evidence) -> Figure:
    """Draw the accuracy of the set, its baselines and the published figure as bars from 0."""
    found = measured(evidence)
    figure, axes = axes_of(0.55 + 0.36 * len(found))
    for at, bar in enumerate(found):
        assert bar.score is not None
        paper, mean = bar.css == "paper", 100 * bar.score.mean
        # A published figure has a std without n; a single net has no std.
        several = paper or (bar.score.n or 2) > 1
        spread = 100 * bar.score.std if bar.score.std and several else None
        axes.barh(
            at, mean, height=0.62, xerr=spread, linewidth=0.6,
            color={"ours": _VERMILION, "paper": "white"}.get(bar.css, _GREY),
            edgecolor=_INK if paper else "none", hatch="////" if paper else None,
            error_kw={"elinewidth": 0.9, "capsize": 2.5, "capthick": 0.9, "ecolor": _INK},
        )  # fmt: skip
        value = f"{mean:.1f}" + ("" if spread is None else f" ± {spread:.1f}")
        end = (mean + (spread or 0.0), at)
        axes.annotate(value, end, (4, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(found)), [_bar_label(bar) for bar in found])
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xticks((0, 25, 50, 75, 100))
    axes.set_xlabel(_metric(evidence))
    return figure


def _metric(evidence: Evidence) -> str:
    return "Mean recall (%)" if evidence.retrieval else "Test accuracy (%)"


def grid(dataset: DistilledSet) -> Figure:
    """Draw the images by class, in the layout of ``image_grid.layout``."""
    sheet, pixels = image_grid.layout(dataset), preview.to_pixels(dataset)
    figure = figure_of(sheet.width, sheet.height)
    for tile in sheet.tiles:
        (w, h), low = sheet.size, sheet.height - tile.y
        box = (tile.x / sheet.width, (low - h) / sheet.height, w / sheet.width, h / sheet.height)
        draw(figure.add_axes(box), pixels[tile.image])
    for caption in sheet.captions:
        across, up = _ALIGNED[caption.at]
        figure.text(
            caption.x / sheet.width, 1 - caption.y / sheet.height, caption.text, fontsize=6.5,
            ha=across, va=up, rotation=90 if caption.upright else 0,
        )  # fmt: skip
    return figure


def _nets_a_point(evidence: Evidence) -> str:
    """Return the number of nets per point of the curves: '2', or '2 to 5' after a change."""
    counts = {
        int(n)
        for row in evidence.rows
        if str(row["stage"]).partition("-")[0] == "curve" and (n := real(row.get("n"))) is not None
    }
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else ""


def _bar_label(bar: Bar) -> str:
    n = bar.score.n if bar.score else None
    words = bar.label + (f" (n\u00a0=\u00a0{n})" if n else "")
    if len(words) > 20:
        words = words.replace(", ", ",\n")
    return "\n".join(line for part in words.split("\n") for line in textwrap.wrap(part, 20))


def draw(axes: Axes, pixels: np.ndarray) -> None:
    """Draw one image [h, w, c], enlarged here because viewers would smooth a small one."""
    scale = math.ceil(TILE / min(pixels.shape[:2]))
    shown = pixels if pixels.shape[-1] == 3 else pixels.mean(-1, keepdims=True).repeat(3, -1)
    large = shown.astype(np.uint8).repeat(scale, 0).repeat(scale, 1)
    axes.imshow(large, interpolation="none", aspect="auto")
    axes.set_axis_off()


def figure_of(width: float, height: float) -> Figure:
    """Return an empty figure of this size in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def axes_of(height: float) -> tuple[Figure, Axes]:
    """Return a figure one column wide and ``height`` inches high, and its axes."""
    figure = figure_of(WIDTH, height)
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02)
    return figure, figure.add_subplot()
