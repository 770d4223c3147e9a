"""Figures for papers of a set of pairs: recall both ways, pictures with captions, similarities."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jdd.product import preview
from jdd.product.pairs import PairSet
from jdd.report import figures
from jdd.report.evidence import Evidence, Score, real, score
from jdd.report.image_grid import GAP, WIDTH
from jdd.report.pairs import HIGH, LOW, ZERO, span
from jdd.report.recalls import COLUMNS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS_OF_PAIRS = 10, 4
LINES = 7  # of a caption
_LETTER, _LINE, _SIZE = 0.051, 0.094, 5.5  # width and height of a letter in inches, its points
_SETS = {"random": ("Random real pairs", "#A6A6A6"), "full": ("All pairs", "#56B4E9")}


class Place(NamedTuple):
    """The upper left corner of a pair's tile in inches, and the lines of its caption."""

    x: float
    y: float
    pair: int
    lines: tuple[str, ...]


class Sheet(NamedTuple):
    """A grid of tiles of ``size`` (width, height) inches; ``cut`` is '' if all pairs are shown."""

    width: float
    height: float
    size: tuple[float, float]
    places: list[Place]
    cut: str


def bars(evidence: Evidence) -> dict[str, list[Score | None]]:
    """Return recall at 1, 5 and 10 both ways of this set and its measured baselines, by label."""
    found = {"This set": evidence.scores.get(evidence.net)}
    found |= {label: evidence.baseline(name) for name, (label, _) in _SETS.items()}
    return {
        f"{label} (n = {one.n})" if one.n else label: [score(one.about.get(n)) for n in COLUMNS]
        for label, one in found.items()
        if one is not None and all(score(one.about.get(name)) for name in COLUMNS)
    }


def recalls(evidence: Evidence) -> Figure:
    """Draw recall at 1, 5 and 10 both ways as groups of bars, chance as a line across each."""
    figure, axes = figures.axes_of(2.1)
    sets, width = bars(evidence), 0.8 / max(1, len(bars(evidence)))
    colours = {"This set": "#D55E00", **dict(_SETS.values())}
    for at, (label, found) in enumerate(sets.items()):
        x = np.arange(len(COLUMNS)) + (at - (len(sets) - 1) / 2) * width
        known = [one for one in found if one is not None]
        spread = [100 * one.std if one.std and (one.n or 2) > 1 else 0.0 for one in known]
        axes.bar(
            x, [100 * one.mean for one in known], width, label=label, linewidth=0.4,
            color=colours[label.partition(" (")[0]], edgecolor="#000000",
            hatch=("", "..", "//")[at],
            yerr=spread if any(spread) else None,
            error_kw={"elinewidth": 0.8, "capsize": 1.5, "capthick": 0.8},
        )  # fmt: skip
    for at, name in enumerate(COLUMNS):
        if (chance := real(evidence.chance.get(name))) is not None:
            axes.hlines(
                100 * chance, at - 0.45, at + 0.45, color="#000000", linewidth=1, zorder=3,
                label="Chance" if at == 0 else "_chance",  # one entry of the legend
            )  # fmt: skip
    axes.set_xticks(range(len(COLUMNS)), ["R@1", "R@5", "R@10"] * 2)
    for middle, words in ((1, "image to text"), (4, "text to image")):
        axes.annotate(
            words, (middle, 0), (0, -24), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center",
        )  # fmt: skip
    axes.set_ylabel("Recall (%)")
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda at: labels[at] == "Chance")  # the last one
    figure.legend(
        [handles[at] for at in order], [labels[at] for at in order], loc="outside upper center",
        ncols=2, handlelength=1.8, columnspacing=1.2,
    )  # fmt: skip
    return figure


def layout(pairs: PairSet) -> Sheet:
    """Return the grid of the first 40 pairs, captions wrapped below their tiles."""
    count = min(pairs.size, ROWS * COLUMNS_OF_PAIRS)
    columns = min(COLUMNS_OF_PAIRS, count)
    side = WIDTH / COLUMNS_OF_PAIRS - 2 * GAP
    tall = side * pairs.images.shape[1] / pairs.images.shape[2]
    places, y = [], 0.0
    for first in range(0, count, columns):
        row = range(first, min(first + columns, count))
        words = [_lines(pairs.captions[i], side) if pairs.captions else () for i in row]
        places += [
            Place(at * (side + 2 * GAP), y, i, lines)
            for at, (i, lines) in enumerate(zip(row, words, strict=True))
        ]
        y += tall + max(map(len, words)) * _LINE + 0.07
    cut = f"{count} of {pairs.size} pairs" if count < pairs.size else ""
    return Sheet(columns * (side + 2 * GAP) - 2 * GAP, y, (side, tall), places, cut)


def _lines(caption: str, width: float) -> tuple[str, ...]:
    letters = int(width / _LETTER)
    return tuple(textwrap.wrap(caption, letters, max_lines=LINES, placeholder=" …"))


def grid(pairs: PairSet) -> Figure:
    """Draw the pairs with their captions, in the layout of ``layout``."""
    sheet, pixels = layout(pairs), preview.to_pixels(pairs)
    figure = figures.figure_of(sheet.width, sheet.height)
    w, h = sheet.size
    for place in sheet.places:
        low = sheet.height - place.y
        box = (place.x / sheet.width, (low - h) / sheet.height, w / sheet.width, h / sheet.height)
        figures.draw(figure.add_axes(box), pixels[place.pair])
        figure.text(
            (place.x + w / 2) / sheet.width, (low - h - 0.025) / sheet.height,
            "\n".join(place.lines), fontsize=_SIZE, ha="center", va="top", linespacing=1.05,
        )  # fmt: skip
    return figure


def has_matrix(pairs: PairSet) -> bool:
    """Return whether S has values off its diagonal."""
    s = pairs.similarity
    return s is not None and bool(_off_diagonal(np.asarray(s.matrix())).any())


def _off_diagonal(s: np.ndarray) -> np.ndarray:
    found: np.ndarray = s[~np.eye(len(s), dtype=bool)]
    return found


def matrix(pairs: PairSet) -> Figure:
    """Draw S with a colour scale that spans the values off its diagonal, as in the report."""
    from matplotlib.colors import LinearSegmentedColormap

    assert pairs.similarity is not None
    s = np.asarray(pairs.similarity.matrix(), np.float64)
    limit = float(np.abs(_off_diagonal(s)).max())
    colours = [tuple(value / 255 for value in ends) for ends in (LOW, ZERO, HIGH)]
    scale = LinearSegmentedColormap.from_list("similarity", colours)
    figure, axes = figures.axes_of(2.9)
    shown = axes.imshow(s, cmap=scale, vmin=-limit, vmax=limit, interpolation="none")
    beyond = np.abs(np.diag(s)) > limit
    bar = figure.colorbar(shown, ax=axes, extend="both" if beyond.any() else "neither", shrink=0.8)
    bar.set_label(f"similarity (diagonal {span(np.diag(s))})")
    axes.set_xlabel("Text")
    axes.set_ylabel("Image")
    ticks = np.unique(np.linspace(0, len(s) - 1, min(len(s), 5)).round().astype(int))
    axes.set_xticks(ticks, [str(i + 1) for i in ticks])
    axes.set_yticks(ticks, [str(i + 1) for i in ticks])
    return figure
