"""Text as vectors: hashed word n-grams weighted by tf-idf, without trained weights, or a BERT.

An encoder of a set is written into its recipe (``to_json``) and found again (``from_json``), so
that new text can be encoded as the set's captions were:

    encode = text.from_json(jdd.load("distilled.npz").recipe["text"])
    vectors = encode(["a thin digit three leaning left"])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from jdd.data import bert_encoder
from jdd.data.bert_encoder import BertEncoder
from jdd.errors import BadInput
from jdd.schema.key import AUTO
from jdd.schema.pairs import Text

NGRAMS = (1, 2)  # words, and pairs of neighbouring words


class Encoder(Protocol):
    """Texts to vectors of length ``size``."""

    @property
    def size(self) -> int:
        """d, the length of a vector."""
        ...

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors float32 [n, d]."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return values that JSON can hold and ``from_json`` reads."""
        ...


class TextEncoder(NamedTuple):
    """A fitted encoder of hashed n-grams.

    Attributes:
      counts: df_j, how many of the training captions have an n-gram of hash cell j, int [d].
      texts: m, the number of training captions.
      scale: "unit": vectors have the length 1; "root": the length sqrt(d).
    """

    counts: np.ndarray
    texts: int
    scale: str = "unit"

    @property
    def size(self) -> int:
        """d, the number of hash cells."""
        return len(self.counts)

    @property
    def idf(self) -> np.ndarray:
        """Inverse document frequencies of the hash cells, ln((1 + m) / (1 + df_j)) + 1, [d]."""
        found: np.ndarray = np.log((1 + self.texts) / (1 + self.counts)) + 1.0
        return found

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return vectors float32 [n, d] of one length; a text without a word is the zero vector."""
        counts = _hashed(texts, self.size).toarray() * self.idf
        length = np.linalg.norm(counts, axis=1, keepdims=True)
        unit = counts / np.where(length > 0, length, 1.0)
        return np.asarray(unit * (np.sqrt(self.size) if self.scale == "root" else 1), np.float32)

    def to_json(self) -> dict[str, Any]:
        """Return the counts, which give the same vectors to the bit."""
        return {
            "encoder": "hashed",
            "size": self.size,
            "texts": self.texts,
            "counts": self.counts.tolist(),
            **({"scale": self.scale} if self.scale != "unit" else {}),
        }


def from_json(entry: Mapping[str, Any]) -> Encoder:
    """Return the encoder that ``to_json`` described, such as ``recipe["text"]`` of a set.

    Raises:
      BadInput: an entry without what the encoder needs; for a BERT its folder is not there, or
        holds another model.
    """
    kind, where = entry.get("encoder"), "text of the recipe"
    needed = {"hashed": ("texts", "counts"), "bert": ("path", "digest", "pool", "words")}
    if kind not in needed:
        raise BadInput(where, f"encoder {kind!r}", f"one of {', '.join(needed)}")
    if absent := [name for name in needed[kind] if name not in entry]:
        found = f"no {' and no '.join(absent)}: the set was made before they were stored"
        raise BadInput(where, found, "distil the set again to encode new text with it")
    if kind == "bert":
        return bert_encoder.from_json(entry)
    counts = np.asarray(entry["counts"], np.int64)
    return TextEncoder(counts, int(entry["texts"]), str(entry.get("scale", "unit")))


def of_set(entry: Mapping[str, Any] | None, words: Text) -> TextEncoder | None:
    """Return the hashed encoder of a set, which new captions are encoded by as well.

    None if the set has none, or an older one without its counts, or ``words`` ask for another.

    Args:
      entry: ``recipe["text"]`` of the set.
      words: the keys by which captions are read.
    """
    if not entry or "counts" not in entry or entry.get("encoder") != words.encoder:
        return None
    found = from_json(entry)
    if not isinstance(found, TextEncoder) or found.size != words.size:
        return None
    return found if words.scale in (AUTO, found.scale) else None


def make(words: Text, training: Sequence[str], scale: str = "root") -> Encoder:
    """Return the encoder of a config; the training captions fit the hashed one.

    Args:
      words: the keys of text.
      training: training captions.
      scale: of the hashed encoder's vectors where ``words.scale`` is 'auto'.

    Raises:
      BadInput: as ``fit`` and ``bert_encoder.load``; a folder with the hashed encoder.
    """
    if words.encoder == "bert":
        if words.scale != AUTO:
            found = f"{words.scale} with text.encoder=bert, whose vectors are the model's"
            raise BadInput("config.text.scale", found, "auto")
        return bert_encoder.load(words.path, words.pool, words.words)
    for key, value in (("path", words.path), ("words", words.words)):
        if value:
            allowed = f"--config.text.encoder=bert, or no text.{key}"
            raise BadInput(f"config.text.{key}", f"{value} with text.encoder=hashed", allowed)
    return fit(training, words.size, scale if words.scale == AUTO else words.scale)


def vectors(
    encode: Encoder, texts: Sequence[str], cache_dir: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return vectors float32 [n, d] and notes for the user; a BERT's are cached."""
    if isinstance(encode, BertEncoder):
        return bert_encoder.cached(encode, texts, cache_dir)
    return encode(texts), ()


def fit(texts: Sequence[str], size: int, scale: str = "unit") -> TextEncoder:
    """Fit the encoder on the training captions alone.

    Args:
      texts: training captions.
      size: d, the number of hash cells.
      scale: the vectors' length, "unit" or "root".

    Raises:
      BadInput: scikit-learn is not installed.
    """
    counts = _hashed(texts, size)
    found = np.asarray((counts != 0).sum(axis=0)).ravel()
    return TextEncoder(found, len(texts), scale)


def _hashed(texts: Sequence[str], size: int) -> Any:
    """Return signed counts of n-grams in hash cells, sparse [n, size]."""
    try:
        from sklearn.feature_extraction.text import HashingVectorizer
    except ImportError:
        raise BadInput(
            "captions", "scikit-learn is not installed", "type: pip install scikit-learn"
        ) from None
    hashing = HashingVectorizer(n_features=size, ngram_range=NGRAMS, norm=None)
    return hashing.transform(texts)
