"""The pairs of a set: pictures with their captions, and the matrix of their similarities."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdd.product import html, preview
from jdd.product.pairs import PairSet, Similarity
from jdd.report.evidence import Evidence, real
from jdd.report.html import THIN, plural
from jdd.report.pictures import BUDGET, Tile, smooth, tile

SHOWN = 50  # pairs on the page at most
# Colours of -m, 0 and m in the picture of similarities; the style sheet's legend has the same.
LOW, ZERO, HIGH = (0x2F, 0x66, 0x90), (0xF6, 0xF4, 0xEF), (0xC8, 0x43, 0x1B)


class Pair(NamedTuple):
    """One pair: its picture, its caption, and the caption's cosine with the text vector."""

    tile: Tile
    caption: str
    about: str


class Matrix(NamedTuple):
    """S in words and as a picture of one pixel a cell; ``tile`` is None if S is diagonal.

    ``low`` and ``high`` are the values at the ends of the colour scale.
    """

    note: str
    tile: Tile | None
    low: str = ""
    high: str = ""


class Pairs(NamedTuple):
    """The section's values."""

    note: str
    css: str
    shown: list[Pair]
    similarity: Matrix


def section(evidence: Evidence) -> Pairs | None:
    """Return the pairs, at most ``SHOWN``; None for another product."""
    pairs = evidence.product
    if not isinstance(pairs, PairSet):
        return None
    count = min(pairs.size, SHOWN, max(1, BUDGET // pairs.images[0].size))
    pixels = preview.to_pixels(pairs._replace(images=pairs.images[:count]))
    cosines = cosines_of(pairs)
    shown = []
    for i in range(count):
        caption = pairs.captions[i] if pairs.captions else f"pair {i + 1}"
        about = f"cosine {cosines[i]:.2f}" if cosines else ""
        shown.append(Pair(tile(pixels[i], caption), caption, about))
    note = _note(evidence, pairs, count, cosines)
    return Pairs(note, "smooth" * smooth(pairs), shown, similarity(pairs.similarity))


def cosines_of(pairs: PairSet) -> list[float]:
    """Return the cosine of each text vector with its nearest caption; [] if the recipe has none."""
    listed = pairs.recipe.get("caption_cosine")
    if not isinstance(listed, list | tuple) or len(listed) != pairs.size:
        return []
    found = [value for value in map(real, listed) if value is not None]
    return found if len(found) == pairs.size else []


def _note(evidence: Evidence, pairs: PairSet, count: int, cosines: Sequence[float]) -> str:
    h, w = pairs.images.shape[1:3]
    which = f"All {plural(count, 'pair')}"
    if count < pairs.size:
        which = f"The first {plural(count, 'pair')} of {pairs.size} (all are in distilled.npz)"
    words = f"{which}, images of {w}{THIN}×{THIN}{h}; normalisation undone, values beyond black "
    words += "and white cut off."
    if not pairs.captions:
        return words
    if evidence.chosen:
        return f"{words} Each has its own caption."
    words += " Texts are vectors: under each image is the training caption nearest to its vector."
    if cosines:
        words += f" Their cosines are {min(cosines):.2f} to {max(cosines):.2f}."
    return words


def similarity(found: Similarity | None) -> Matrix:
    """Return S, the target similarities of images and texts, in words and as a picture."""
    identity = "S is the identity: each image is matched with its own text alone."
    if found is None:
        return Matrix(identity, None)
    s = np.asarray(found.matrix(), np.float64)
    own, others = np.diag(s), s[~np.eye(len(s), dtype=bool)]
    if not others.any():
        if (own == 1).all():
            return Matrix(identity, None)
        return Matrix(f"S is diagonal: {span(own)}. No image is matched with another's text.", None)
    limit = float(np.abs(others).max())
    note = (
        f"S, the similarity that towers learn for image i and text j: diagonal {span(own)}, "
        f"off-diagonal {span(others)}. "
    )
    beyond = int((np.abs(own) > limit).sum())
    if beyond:
        which = "the diagonal lies" if beyond == len(own) else f"{beyond} diagonal cells lie"
        note += f"Colours span the off-diagonal values; {which} beyond, in a colour of the ends."
    h, w = s.shape
    src = f"data:image/png;base64,{base64.b64encode(picture(s, limit)).decode()}"
    ends = (f"{-limit:.2g}".replace("-", "−"), f"{limit:.2g}")
    return Matrix(note.strip(), Tile(src, "similarity of images and texts", w, h), *ends)


def span(values: np.ndarray) -> str:
    """Return the range of values in words: '0.91 to 1.2', or the one value."""
    low, high = (f"{value:.2g}".replace("-", "−") for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"


def picture(values: np.ndarray, limit: float) -> bytes:
    """Return values [n, m] as a PNG of one pixel a cell, coloured from ``-limit`` to ``limit``."""
    from PIL import Image

    index = np.round(127.5 + 127.5 * np.clip(values / limit, -1, 1)).astype(np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette().tobytes())
    return html.png(image)


def palette() -> np.ndarray:
    """Return the 256 colours of the scale, uint8 [256, 3]."""
    at = np.linspace(-1, 1, 256)
    channels = [np.interp(at, [-1, 0, 1], ends) for ends in zip(LOW, ZERO, HIGH, strict=True)]
    return np.stack(channels, 1).round().astype(np.uint8)
