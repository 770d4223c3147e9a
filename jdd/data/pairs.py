"""A dataset of images and captions, ready for training: split, normalised, its text encoded."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jdd import rng
from jdd.data import dataset as images_of
from jdd.data import text
from jdd.data.bert_encoder import BertEncoder
from jdd.data.sources import captioned, digits_captions, parquet_pairs
from jdd.data.sources.captioned import Captioned
from jdd.data.sources.request import Request
from jdd.data.text import Encoder, TextEncoder
from jdd.data.transform import Transform, channel_stats, normalisation
from jdd.errors import BadInput
from jdd.schema.pairs import PairData, Text

NAMES = digits_captions.DATASETS
_MOST = 10  # the largest k of recall at k
_SEED = 0  # of a test split that no file states: the same for every seed of a run


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

    @property
    def size(self) -> int:
        """The number of pairs to train on: of captions."""
        return len(self.captions)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs of both towers, with the index of each caption's image."""
        return {"image": self.images, "text": self.text, "of": self.image_of}

    @property
    def targets(self) -> dict[str, np.ndarray]:
        """The similarities of the pairs in the trainer's form: the identity."""
        none = np.zeros((self.size, 0), np.float32)
        return {"w": np.ones(self.size, np.float32), "left": none, "right": none}


class PairDataset(NamedTuple):
    """A dataset of pairs; ``notes`` are sentences for the user, ``encoder`` made the vectors."""

    name: str
    train: PairSplit
    val: PairSplit | None
    test: PairSplit
    transform: Transform
    dsa: str
    fingerprint: str
    notes: tuple[str, ...] = ()
    encoder: Encoder | None = None

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


def load(data: PairData, words: Text, encoder: TextEncoder | None = None) -> PairDataset:
    """Load a dataset of pairs.

    The encoder's document frequencies, the mean and deviation of the pixels and the terciles of the
    digits' captions come from the training split alone.

    Args:
      data: ``digits_captions``, or a name of one's own with ``path``: a folder or archive of images
        with captions in ``data.captions`` (``sources.captioned``), or Parquet files of both
        (``sources.parquet_pairs``).
      words: length of the text vectors, and how many captions of an image are used.
      encoder: of a set, in place of one fitted on the training captions.

    Raises:
      BadInput: an unknown dataset, unreadable images or captions, or scikit-learn is not installed.
    """
    if data.name in NAMES:
        return _digits(data, words, encoder)
    if not data.path:
        raise BadInput("config.data.name", repr(data.name), f"one of {', '.join(NAMES)}")
    return _captioned(data, words, encoder)


def of_recipe(recipe: Mapping[str, Any]) -> PairDataset:
    """Load the dataset that a set of pairs was made from, by the set's recipe.

    Raises:
      BadInput: as ``load``.
    """
    values: dict[str, dict[str, Any]] = {"data": {"name": recipe["dataset"]}, "text": {}}
    for name, keys in (("data", PairData), ("text", Text)):
        known = {field.name for field in dataclasses.fields(keys)}
        found = recipe.get(name) or {}
        values[name] |= {key: value for key, value in found.items() if key in known}
    words = Text(**values["text"])
    return load(PairData(**values["data"]), words, text.of_set(recipe.get("text"), words))


def _digits(data: PairData, words: Text, encoder: TextEncoder | None) -> PairDataset:
    for key in ("path", "captions", "size", "image_column", "caption_column"):
        if value := getattr(data, key):
            found = f"{value} with {data.name}, whose images and captions are built in"
            raise BadInput(f"config.data.{key}", found, "a name of your own for data of your own")
    if words.captions > digits_captions.PHRASINGS:
        allowed = f"1 to {digits_captions.PHRASINGS}, the phrasings of {data.name}"
        raise BadInput("config.text.captions", str(words.captions), allowed)
    digits = images_of.load({"name": "digits", "cache_dir": data.cache_dir})
    whole = {"train": digits.train, "test": digits.test}
    pixels = {key: digits.transform.inverse(split.images) for key, split in whole.items()}
    cuts = digits_captions.terciles(pixels["train"])
    triples = {
        key: digits_captions.triples(pixels[key], split.labels, cuts)
        for key, split in whole.items()
    }
    worded = {
        key: digits_captions.captions(found, words.captions) for key, found in triples.items()
    }
    fitted = text.make(words, worded["train"][0], "unit")
    encode = encoder or fitted
    vectors, notes = _encoded(encode, {k: found for k, (found, _) in worded.items()}, data)

    def split(key: str) -> PairSplit:
        captions, rows = worded[key]
        stroke, digit, lean = triples[key].T
        meaning = ((stroke * 10 + digit) * 3 + lean).astype(np.int32)
        return PairSplit(whole[key].images, tuple(captions), vectors[key], rows, meaning)

    train, test = split("train"), split("test")
    parts = [
        digits.fingerprint,
        data.name,
        *_identity(encode, fitted),
        *train.captions,
        *test.captions,
    ]
    digest = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    return PairDataset(
        data.name, train, None, test, digits.transform, "none", digest,
        (*digits.notes, *notes), encode,
    )  # fmt: skip


def _captioned(data: PairData, words: Text, encoder: TextEncoder | None) -> PairDataset:
    request = Request(data.name, None, "folder", data.path, data.size, data.cache_dir)
    if not request.file.exists():
        allowed = "a folder, .zip or .tar of images with captions, or .parquet files"
        raise BadInput("config.data.path", f"{data.path} does not exist", allowed)
    found = _read(request, data)
    splits, notes = _splits(found.splits, data)
    first = _first_captions(found.image_of, words.captions)
    own = {key: first & (splits == key)[found.image_of] for key in ("train", "val", "test")}
    captions = np.array(found.captions, object)
    fitted = text.make(words, list(captions[own["train"]]))
    encode = encoder or fitted
    vectors, more = _encoded(encode, {key: captions[used] for key, used in own.items()}, data)
    train_images = found.images[splits == "train"]
    transform = normalisation(*channel_stats(train_images, 255.0))

    def split(key: str) -> PairSplit:
        rows, used = splits == key, own[key]
        new = np.cumsum(rows) - 1
        chosen = tuple(captions[used])
        pixels = found.images[rows].astype(np.float32) / np.float32(255.0)
        of = new[found.image_of[used]].astype(np.int32)
        meaning = np.arange(len(pixels), dtype=np.int32)
        return PairSplit(transform.forward(pixels), chosen, vectors[key], of, meaning)

    digest = hashlib.sha256(np.ascontiguousarray(found.images).data)
    for part in (
        *found.files,
        *found.captions,
        *splits,
        *_identity(encode, fitted),
        str(words.captions),
    ):
        digest.update(part.encode() + b"\n")
    held = split("val") if (splits == "val").any() else None
    test = split("test")
    return PairDataset(
        data.name, split("train"), held, test, transform, "none",
        digest.hexdigest()[:16], (*found.notes, *notes, *_few(test), *more), encode,
    )  # fmt: skip


def _few(test: PairSplit) -> list[str]:
    """Return a note if the test split has fewer candidates than recall is measured at."""
    counts = (len(test.images), len(test.captions))
    if min(counts) >= _MOST:
        return []
    images, captions = (
        f"{n} {w}{'s' * (n != 1)}" for n, w in zip(counts, ("image", "caption"), strict=True)
    )
    return [f"{images} and {captions} to test on: recall at {_MOST} is of {_MOST} or all there are"]


def _read(request: Request, data: PairData) -> Captioned:
    """Read Parquet files, or images and a file of captions."""
    columns = {"image_column": data.image_column, "caption_column": data.caption_column}
    if parquet_pairs.is_parquet(request.file) and not data.captions:
        return parquet_pairs.read(request, data.image_column, data.caption_column)
    for key, value in columns.items():
        if value:
            found = f"{value} with {data.captions or data.path}, which is no Parquet"
            raise BadInput(f"config.data.{key}", found, "empty, or data.path of Parquet files")
    return captioned.read(request, data.captions)


def _encoded(
    encode: Encoder, captions: Mapping[str, Sequence[str]], data: PairData
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Return the text vectors of each split, and notes."""
    every = [caption for own in captions.values() for caption in own]
    found, notes = text.vectors(encode, every, data.cache_dir)
    ends = np.cumsum([len(own) for own in captions.values()])
    return dict(zip(captions, np.split(found, ends[:-1]), strict=True)), notes


def _identity(encode: Encoder, fitted: Encoder) -> list[str]:
    """Return words of the encoder for the fingerprint of the data.

    What is fitted on the training captions follows from them.
    """
    if isinstance(encode, BertEncoder):
        return ["bert", encode.digest, encode.pool, str(encode.words)]
    size, own = str(encode.size), encode.to_json()
    size += f" {own['scale']}" if "scale" in own else ""
    return [size] if own == fitted.to_json() else [size, json.dumps(own, sort_keys=True)]


def _splits(stated: tuple[str, ...], data: PairData) -> tuple[np.ndarray, list[str]]:
    """Return "train", "val" or "test" of each image: as stated, else by ``data.test``.

    Images without a split in a file that states others are training images.
    """
    splits, notes = np.array([name or "train" for name in stated]), []
    if not (splits == "test").any():
        rows = np.flatnonzero(splits == "train")
        count = max(1, round(len(rows) * data.test)) if data.test else 0
        if not 0 < count < len(rows):
            found = f"{data.test:g} of {len(rows)} images, and no test split is stated"
            raise BadInput("config.data.test", found, "a fraction that leaves images on both sides")
        splits[rng.host(_SEED, "split-test").permutation(rows)[:count]] = "test"
        notes.append(f"no test split stated: {count} of {len(rows)} images are it (seed {_SEED})")
    if not (splits == "train").any():
        raise BadInput("config.data.captions", "no image of the split train", "a training split")
    return splits, notes


def _first_captions(image_of: np.ndarray, most: int) -> np.ndarray:
    """Return which captions are among the first ``most`` of their image; they lie side by side."""
    start = np.searchsorted(image_of, image_of, side="left")
    return np.arange(len(image_of)) - start < most
