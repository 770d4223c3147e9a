"""Pictures of a product: pixels, single images and the grid ``distilled.png``.

For pairs, the grid has a caption under each image; for a generator, it shows one epoch's images.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd import rng
from jdd.product import fonts, html
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.storage.files import write_atomic

SMALLEST = 64  # shorter side of an image in the grid, in screen pixels
WIDEST = 2400  # maximum width of the grid, if the images allow it
ROW = 50  # maximum number of images of a class on one row
GAP, MARGIN, TEXT = 4, 16, 14
# For a pair: the shorter side of its image, the lines of its caption at most, the gap below it.
WORDED, LINES, APART = 128, 8, 12
PAPER, INK = (255, 255, 255), (70, 72, 80)


class Cell(NamedTuple):
    """One cell of the grid; ``image`` is the index of the image in the set."""

    image: int
    row: int
    column: int
    caption: str


SHOWN = 10  # maximum number of images of each class of a generator


def shown(product: AnyProduct) -> DistilledSet | PairSet:
    """Return the displayable images: the product itself, or one epoch's images of a generator."""
    if not isinstance(product, GeneratorSet):
        return product
    few = product._replace(per_class=min(product.per_class, SHOWN))
    images = np.asarray(few.images(rng.key(0, "preview")))
    return DistilledSet(images, few.labels, "hard", None, few.recipe, few.transform)


def to_pixels(dataset: DistilledSet | PairSet) -> np.ndarray:
    """Return the images as uint8 [n, h, w, c]: un-whitened, un-normalised, clipped to [0, 1].

    A synthetic image may exceed [0, 1]; values outside cannot be shown.
    """
    return html.pixels(dataset.images, dataset.transform)


def by_class(dataset: DistilledSet) -> list[np.ndarray]:
    """Return for each class the indices of its images, in order."""
    of = dataset.classes_of_images
    return [np.flatnonzero(of == c) for c in range(dataset.classes)]


def png(pixels: np.ndarray) -> bytes:
    """Return one uint8 image [h, w, c] as the bytes of a PNG file, pixel for pixel."""
    return html.png(html.picture(pixels))


def grid(product: AnyProduct, names: bool = True) -> bytes:
    """Return the whole set as one PNG: one row per class, or captioned tiles if IPC is 1.

    Pairs are tiles, each with the caption nearest to its text.

    Images are enlarged without smoothing until the shorter side is at least 64 pixels, or less if
    the grid would exceed a width of 2400.
    """
    from PIL import Image, ImageDraw

    seen = shown(product)
    pixels = to_pixels(seen)
    h, w = pixels.shape[1:3]
    cells, tiles = _pairs(seen, names) if isinstance(seen, PairSet) else _cells(seen, names)
    paired = isinstance(seen, PairSet) and names
    widest = max(_font(cell.caption).getlength(cell.caption) for cell in cells)
    left = MARGIN + (math.ceil(min(widest, 240)) + 12 if names and not tiles else 0)
    columns = 1 + max(cell.column for cell in cells)
    scale = max(1, math.ceil((WORDED if paired else SMALLEST) / min(h, w)))
    scale = max(1, min(scale, ((WIDEST - left - MARGIN) // columns - GAP) // w))
    words = _worded(cells, w * scale, paired) if tiles else {}
    lines = max((len(found) for found in words.values()), default=1)
    below = lines * (TEXT + 4) + 4 + APART * paired if tiles and names else 0
    step_x, step_y = w * scale + GAP, h * scale + GAP + below
    rows = 1 + max(cell.row for cell in cells)
    sheet = Image.new(
        "RGB", (left + columns * step_x - GAP + MARGIN, 2 * MARGIN + rows * step_y - GAP), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for cell in cells:
        x, y = left + cell.column * step_x, MARGIN + cell.row * step_y
        tile = html.picture(pixels[cell.image])
        sheet.paste(tile.resize((w * scale, h * scale), Image.Resampling.NEAREST), (x, y))
        if not cell.caption:
            continue
        font = _font(cell.caption)
        if tiles:
            for line, text in enumerate(words[cell]):
                at = (x + w * scale / 2, y + h * scale + 4 + line * (TEXT + 4))
                draw.text(at, text, INK, font, anchor="ma")
        else:
            text = _fit(cell.caption, font, 240)
            draw.text((left - 12, y + h * scale / 2), text, INK, font, anchor="rm")
    return html.png(sheet)


def strips(rows: Sequence[np.ndarray], captions: Sequence[str]) -> bytes:
    """Return images as one PNG: strips of equally many, each with a caption on its left.

    Args:
      rows: uint8 [n, h, w, c] each, of one shape.
    """
    from PIL import Image, ImageDraw

    count, h, w = rows[0].shape[:3]
    left = MARGIN + math.ceil(max(_font(word).getlength(word) for word in captions)) + 12
    scale = max(1, math.ceil(SMALLEST / min(h, w)))
    scale = max(1, min(scale, ((WIDEST - left - MARGIN) // count - GAP) // w))
    step_x, step_y = w * scale + GAP, h * scale + GAP
    size = (left + count * step_x - GAP + MARGIN, 2 * MARGIN + len(rows) * step_y - GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        y = MARGIN + i * step_y
        for j, image in enumerate(row):
            tile = html.picture(image).resize((w * scale, h * scale), Image.Resampling.NEAREST)
            sheet.paste(tile, (left + j * step_x, y))
        draw.text((left - 12, y + h * scale / 2), caption, INK, _font(caption), anchor="rm")
    return html.png(sheet)


def _worded(cells: list[Cell], width: float, paired: bool) -> dict[Cell, list[str]]:
    """Return the lines of each caption below a tile of ``width`` pixels; several for pairs."""
    room, most = (width - GAP, LINES) if paired else (width + GAP, 1)
    return {
        cell: _wrapped(cell.caption, _font(cell.caption), room, most)
        for cell in cells
        if cell.caption
    }


def save(product: AnyProduct, path: str | os.PathLike[str]) -> Path:
    """Write ``grid`` to ``path``, atomically."""
    data = grid(product)
    return write_atomic(path, lambda file: file.write(data))


def _pairs(pairs: PairSet, names: bool) -> tuple[list[Cell], bool]:
    """Place every pair as a tile."""
    columns = 5 if pairs.size <= 25 else 10 if pairs.size <= 100 else 20
    captions = pairs.captions if names and pairs.captions else ("",) * pairs.size
    captions = tuple(_shown(name, i) for i, name in enumerate(captions))
    places = (divmod(i, columns) for i in range(pairs.size))
    return [Cell(i, row, column, captions[i]) for i, (row, column) in enumerate(places)], True


def _cells(dataset: DistilledSet, names: bool) -> tuple[list[Cell], bool]:
    """Place every image; True if the images are tiles, one per class."""
    groups = [(c, group) for c, group in enumerate(by_class(dataset)) if len(group)]
    captions = [_shown(name, c) if names else "" for c, name in enumerate(dataset.class_names)]
    most = max(len(group) for _, group in groups)
    if most == 1:
        columns = 5 if len(groups) <= 10 else 10 if len(groups) <= 100 else 20
        return [
            Cell(int(group[0]), *divmod(place, columns), captions[c])
            for place, (c, group) in enumerate(groups)
        ], True
    cells, row = [], 0
    for c, group in groups:
        for place, index in enumerate(group):
            down, column = divmod(place, ROW)
            cells.append(Cell(int(index), row + down, column, "" if place else captions[c]))
        row += math.ceil(len(group) / ROW)
    return cells, False


def _font(caption: str) -> Any:
    return fonts.font_for(caption, TEXT)


def _shown(name: str, number: int) -> str:
    """Return a name as the grid shows it: its number if no font has its letters."""
    return name if _font(name) is not None else str(number)


def unnamed(product: AnyProduct) -> str:
    """Return one line on the names that the grid cannot show; '' if it shows all."""
    seen = shown(product)
    names = seen.captions or () if isinstance(seen, PairSet) else seen.class_names
    left = [name for name in names if _font(name) is None]
    if not left:
        return ""
    few = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
    what = "name" if len(left) == 1 else "names"
    return (
        f"no font here has the letters of {len(left)} {what} ({few}): the grid of images shows "
        "numbers in their place; the report has the names"
    )


def _fit(text: str, font: Any, width: float) -> str:
    """Shorten ``text`` with an ellipsis until it is at most ``width`` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _wrapped(text: str, font: Any, width: float, lines: int) -> list[str]:
    """Return ``text`` in at most ``lines`` lines of at most ``width`` pixels, broken at words."""
    out, words = [""], text.split(" ")
    while words:
        longer = f"{out[-1]} {words[0]}".strip()
        if out[-1] and font.getlength(longer) > width and len(out) < lines:
            out.append("")
            continue
        out[-1] = longer
        words.pop(0)
    return [_fit(line, font, width) for line in out]
