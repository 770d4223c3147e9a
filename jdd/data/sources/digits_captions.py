"""Captions of the 8x8 digits, derived from their pixels: pairs without a download.

Every image has one attribute triple: stroke (thin, medium, bold), digit, lean (left, upright,
right). Stroke and lean are terciles, over the training images, of the ink and of the horizontal
centre of the ink. Five phrasings word one triple.
"""

from __future__ import annotations

import numpy as np

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
STROKES = ("thin", "medium", "bold")
LEANS = ("left", "upright", "right")
PHRASINGS = 5
DATASETS = ("digits_captions",)  # of pairs

_LEANING = {"left": "leaning left", "upright": "standing upright", "right": "leaning right"}
_THAT = {"left": "that leans left", "upright": "that stands upright", "right": "that leans right"}


def triples(
    images: np.ndarray, labels: np.ndarray, cuts: tuple[np.ndarray, np.ndarray]
) -> np.ndarray:
    """Return (stroke, digit, lean) of every image, int32 [n, 3].

    Args:
      images: grey levels [n, h, w, 1], 0 where there is no ink.
      labels: digits [n], 0 to 9.
      cuts: ``terciles`` of the training images.
    """
    ink, centre = _measures(images)
    stroke, lean = (
        np.searchsorted(cut, value, side="right")
        for cut, value in zip(cuts, (ink, centre), strict=True)
    )
    return np.stack([stroke, labels, lean], axis=1).astype(np.int32)


def terciles(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the two cuts of ink and those of its horizontal centre, of training images."""
    ink, centre = _measures(images)
    return np.quantile(ink, (1 / 3, 2 / 3)), np.quantile(centre, (1 / 3, 2 / 3))


def _measures(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return ink (mean grey level) and horizontal centre of the ink (pixels), each [n]."""
    grey = np.asarray(images, np.float64)[..., 0]
    columns = grey.sum(axis=1)
    total = np.maximum(columns.sum(axis=1), 1e-12)
    return grey.mean(axis=(1, 2)), columns @ np.arange(grey.shape[2]) / total


def caption(triple: np.ndarray, phrasing: int = 0) -> str:
    """Return the words of one triple in phrasing 0 to 4.

    >>> caption(np.array([0, 3, 0]))
    'a thin digit three leaning left'
    """
    stroke, word, lean = STROKES[triple[0]], WORDS[triple[1]], LEANS[triple[2]]
    return (
        f"a {stroke} digit {word} {_LEANING[lean]}",
        f"the number {word} in {stroke} strokes, {_LEANING[lean]}",
        f"a handwritten {word} {_THAT[lean]}, drawn with a {stroke} pen",
        f"{stroke} {word}, {_LEANING[lean]}",
        f"someone wrote a {word} with {stroke} lines {_THAT[lean]}",
    )[phrasing]


def captions(triples: np.ndarray, each: int) -> tuple[list[str], np.ndarray]:
    """Return ``each`` captions of every triple and the row that each of them words.

    Returns:
      n * each captions, image by image, and the rows, int32 [n * each].
    """
    words = [caption(triple, phrasing) for triple in triples for phrasing in range(each)]
    return words, np.repeat(np.arange(len(triples), dtype=np.int32), each)
