"""A distilled set as a person sees it: pixels, single images and the grid ``distilled.png``."""

from __future__ import annotations

import io
import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd.product.distilled_set import DistilledSet
from jdd.storage.files import write_atomic

SMALLEST = 64  # shorter side of an image in the grid, in screen pixels
WIDEST = 2400  # width of the grid, where the images allow it
ROW = 50  # images of a class on one row, at most
GAP, MARGIN, TEXT = 4, 16, 14
PAPER, INK = (255, 255, 255), (70, 72, 80)


class Cell(NamedTuple):
    """One place of the grid; ``image`` is the image's number in the set."""

    image: int
    row: int
    column: int
    caption: str


def to_pixels(dataset: DistilledSet) -> np.ndarray:
    """Return the images as uint8 [n, h, w, c]: un-whitened, un-normalised, clipped to [0, 1].

    A synthetic image may leave [0, 1]; what is outside cannot be shown and is cut off.
    """
    pixels = np.asarray(dataset.transform.inverse(dataset.images))
    shown: np.ndarray = np.round(np.clip(pixels, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown


def by_class(dataset: DistilledSet) -> list[np.ndarray]:
    """Return for each class the numbers of its images, in their order."""
    of = dataset.classes_of_images
    return [np.flatnonzero(of == c) for c in range(dataset.classes)]


def png(pixels: np.ndarray) -> bytes:
    """Return one uint8 image [h, w, c] as the bytes of a PNG file, pixel for pixel."""
    return _bytes(_image(pixels))


def grid(dataset: DistilledSet, names: bool = True) -> bytes:
    """Return the whole set as one PNG: a row a class, or tiles with captions at one image a class.

    Images are enlarged without smoothing until the shorter side is at least 64 pixels, less
    where the grid would grow wider than 2400.
    """
    from PIL import Image, ImageDraw, ImageFont

    pixels = to_pixels(dataset)
    h, w = pixels.shape[1:3]
    cells, tiles = _cells(dataset, names)
    font = ImageFont.load_default(TEXT)
    below = TEXT + 8 if tiles and names else 0
    widest = max(font.getlength(cell.caption) for cell in cells)
    left = MARGIN + (math.ceil(min(widest, 240)) + 12 if names and not tiles else 0)
    columns = 1 + max(cell.column for cell in cells)
    scale = max(1, math.ceil(SMALLEST / min(h, w)))
    scale = max(1, min(scale, ((WIDEST - left - MARGIN) // columns - GAP) // w))
    step_x, step_y = w * scale + GAP, h * scale + GAP + below
    rows = 1 + max(cell.row for cell in cells)
    sheet = Image.new(
        "RGB", (left + columns * step_x - GAP + MARGIN, 2 * MARGIN + rows * step_y - GAP), PAPER
    )
    draw = ImageDraw.Draw(sheet)
    for cell in cells:
        x, y = left + cell.column * step_x, MARGIN + cell.row * step_y
        tile = _image(pixels[cell.image])
        sheet.paste(tile.resize((w * scale, h * scale), Image.Resampling.NEAREST), (x, y))
        if not cell.caption:
            continue
        if tiles:
            text = _fit(cell.caption, font, w * scale + GAP)
            draw.text((x + w * scale / 2, y + h * scale + 4), text, INK, font, anchor="ma")
        else:
            text = _fit(cell.caption, font, 240)
            draw.text((left - 12, y + h * scale / 2), text, INK, font, anchor="rm")
    return _bytes(sheet)


def save(dataset: DistilledSet, path: str | os.PathLike[str]) -> Path:
    """Write ``grid`` to ``path``, complete or not at all."""
    data = grid(dataset)
    return write_atomic(path, lambda file: file.write(data))


def _cells(dataset: DistilledSet, names: bool) -> tuple[list[Cell], bool]:
    """Place every image; True when the images are tiles, one a class."""
    groups = [(c, group) for c, group in enumerate(by_class(dataset)) if len(group)]
    captions = dataset.class_names if names else [""] * dataset.classes
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


def _fit(text: str, font: Any, width: float) -> str:
    """Shorten ``text`` with an ellipsis until it is at most ``width`` pixels wide."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    if pixels.shape[-1] in (1, 3):
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    # Neither grey nor colour: the mean over channels still shows the shapes.
    return Image.fromarray(pixels.mean(axis=-1).astype(np.uint8))


def _bytes(image: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
