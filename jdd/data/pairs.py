"""A dataset of images and captions, ready for training: split, normalised, its text encoded."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np

from jdd.data import dataset as images_of
from jdd.data import text
from jdd.data.sources import digits_captions
from jdd.data.transform import Transform
from jdd.errors import BadInput

NAMES = digits_captions.DATASETS


class PairSplit(NamedTuple):
    """Images, captions, and which image each caption is of.

    Fields:
      images: float32 [n, h, w, c] in the net's input space.
      captions: m texts.
      text: their vectors, float32 [m, d].
      image_of: the row of each caption's image, int32 [m].
      meaning: int32 [n]; images of equal meaning have interchangeable captions: a hit counts where
        the meanings agree. 0 .. n-1 where only an image's own captions are right.
    """

    images: np.ndarray
    captions: tuple[str, ...]
    text: np.ndarray
    image_of: np.ndarray
    meaning: np.ndarray


class PairDataset(NamedTuple):
    """A dataset of pairs; ``notes`` are sentences for the user."""

    name: str
    train: PairSplit
    val: PairSplit | None
    test: PairSplit
    transform: Transform
    dsa: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """Pairs have no classes."""
        return ()

    @property
    def classes(self) -> int:
        """The number of classes: none."""
        return 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(h, w, c) of one image."""
        h, w, c = self.train.images.shape[1:]
        return h, w, c

    @property
    def text_size(self) -> int:
        """d, the length of a text vector."""
        return int(self.train.text.shape[1])


def load(name: str, size: int, each: int, cache_dir: str = "") -> PairDataset:
    """Load a dataset of pairs.

    The encoder's document frequencies and the terciles of the captions come from the training
    split alone.

    Args:
      name: ``digits_captions``.
      size: length of the text vectors.
      each: captions of an image, 1 to 5.
      cache_dir: as ``data.load``'s.

    Raises:
      BadInput: an unknown dataset, or scikit-learn is not installed.
    """
    if name not in NAMES:
        raise BadInput("config.data.name", repr(name), f"one of {', '.join(NAMES)}")
    digits = images_of.load({"name": "digits", "cache_dir": cache_dir})
    whole = {"train": digits.train, "test": digits.test}
    pixels = {key: digits.transform.inverse(split.images) for key, split in whole.items()}
    cuts = digits_captions.terciles(pixels["train"])
    triples = {
        key: digits_captions.triples(pixels[key], split.labels, cuts)
        for key, split in whole.items()
    }
    worded = {key: digits_captions.captions(found, each) for key, found in triples.items()}
    encode = text.fit(worded["train"][0], size)

    def split(key: str) -> PairSplit:
        captions, rows = worded[key]
        stroke, digit, lean = triples[key].T
        meaning = ((stroke * 10 + digit) * 3 + lean).astype(np.int32)
        return PairSplit(whole[key].images, tuple(captions), encode(captions), rows, meaning)

    train, test = split("train"), split("test")
    parts = [digits.fingerprint, name, str(size), *train.captions, *test.captions]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return PairDataset(name, train, None, test, digits.transform, "none", digest, digits.notes)
