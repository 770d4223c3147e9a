"""Layout of images and captions in the printed image grid; all lengths are in inches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from jdd.product import preview
from jdd.product.distilled_set import DistilledSet

WIDTH = 3.3  # one column of a two-column page
ROWS, COLUMNS = 20, 10  # maximum classes and images of a class
LARGEST = 0.66  # side of a tile
GAP = 0.02  # between tiles
_LETTER, _LINE = 0.056, 0.14  # width and height of a letter of a caption, on average
_LONGEST = 16  # letters of a caption
_SHORT = 5  # letters that fit next to a tile a tenth of the width
_NAMED = 50  # classes whose longer names fit next to tiles a fifth of the width


class Tile(NamedTuple):
    """The position of one image: its upper left corner, from the upper left of the grid."""

    x: float
    y: float
    image: int


class Caption(NamedTuple):
    """A class name at the middle of the side ``at`` of its tiles: 'top', 'bottom' or 'left'."""

    x: float
    y: float
    text: str
    at: str
    upright: bool = False


class Sheet(NamedTuple):
    """A grid of tiles of ``size`` (width, height); ``cut`` is '' if all images are shown."""

    width: float
    height: float
    size: tuple[float, float]
    tiles: list[Tile]
    captions: list[Caption]
    cut: str


def layout(dataset: DistilledSet) -> Sheet:
    """Return the grid: a column per class, tiles (one image per class), or a row per class.

    It shows the first 20 classes of 10 images each, or the first 200 of one image, the most that is
    legible in print; ``cut`` states how many are shown.
    """
    groups = [
        (name, numbers)
        for name, numbers in zip(dataset.class_names, preview.by_class(dataset), strict=True)
        if len(numbers)
    ]
    most = max(len(numbers) for _, numbers in groups)
    limit = ROWS * (COLUMNS if most == 1 else 1)
    shown = [(_short(name, _LONGEST), numbers[:COLUMNS]) for name, numbers in groups[:limit]]
    cut = []
    if len(groups) > limit:
        cut.append(f"{limit} of {len(groups)} classes")
    if most > COLUMNS:
        cut.append(f"{COLUMNS} of {most} images of each class")
    tall = dataset.images.shape[1] / dataset.images.shape[2]
    long = max(len(name) for name, _ in shown) > _SHORT
    if most == 1 and (long or len(shown) > COLUMNS):
        if long and len(shown) > _NAMED:
            shown = [("", numbers) for _, numbers in shown]
            cut.append("without class names, which do not fit")
        sheet = _tiles(shown, tall, 5 if long and len(shown) <= _NAMED else COLUMNS)
    elif len(shown) <= COLUMNS:
        sheet = _columns(shown, tall)
    else:
        sheet = _rows(shown, tall)
    return sheet._replace(cut=", ".join(cut))


def _columns(shown: list[tuple[str, np.ndarray]], tall: float) -> Sheet:
    side = min(WIDTH / len(shown), LARGEST)
    widest = _LETTER * max(len(name) for name, _ in shown)
    upright = widest > side
    top = 0.06 + widest if upright else _LINE
    step = (side - GAP) * tall + GAP
    tiles, captions = [], []
    for column, (name, numbers) in enumerate(shown):
        middle = column * side + (side - GAP) / 2
        captions.append(Caption(middle, top - 0.03, name, "top", upright))
        tiles += [Tile(column * side, top + at * step, int(i)) for at, i in enumerate(numbers)]
    most = max(len(numbers) for _, numbers in shown)
    size = (side - GAP, step - GAP)
    return Sheet(len(shown) * side - GAP, top + most * step - GAP, size, tiles, captions, "")


def _tiles(shown: list[tuple[str, np.ndarray]], tall: float, columns: int) -> Sheet:
    columns = min(columns, len(shown))
    side = min(WIDTH / columns, LARGEST)
    size = (side - GAP, (side - GAP) * tall)
    step = size[1] + (_LINE if any(name for name, _ in shown) else GAP)
    tiles, captions = [], []
    for at, (name, numbers) in enumerate(shown):
        row, column = divmod(at, columns)
        x, y = column * side, row * step
        tiles.append(Tile(x, y, int(numbers[0])))
        words = _short(name, int(size[0] / _LETTER))
        captions.append(Caption(x + size[0] / 2, y + size[1] + 0.02, words, "bottom"))
    rows = 1 + (len(shown) - 1) // columns
    return Sheet(columns * side - GAP, rows * step, size, tiles, captions, "")


def _rows(shown: list[tuple[str, np.ndarray]], tall: float) -> Sheet:
    left = 0.08 + _LETTER * max(len(name) for name, _ in shown)
    most = max(len(numbers) for _, numbers in shown)
    side = min((WIDTH - left) / max(most, COLUMNS // 2), LARGEST)
    size = (side - GAP, (side - GAP) * tall)
    step = size[1] + GAP
    tiles, captions = [], []
    for row, (name, numbers) in enumerate(shown):
        captions.append(Caption(left - 0.05, row * step + size[1] / 2, name, "left"))
        tiles += [Tile(left + at * side, row * step, int(i)) for at, i in enumerate(numbers)]
    return Sheet(left + most * side - GAP, len(shown) * step - GAP, size, tiles, captions, "")


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: max(1, length - 1)]}…"
