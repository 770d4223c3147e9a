"""Text as vectors, without trained weights: hashed word n-grams, weighted by tf-idf."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jdd.errors import BadInput

NGRAMS = (1, 2)  # words, and pairs of neighbouring words


class TextEncoder(NamedTuple):
    """A fitted encoder; ``idf`` [d] are the inverse document frequencies of the hash cells.

    idf_j = ln((1 + m) / (1 + df_j)) + 1, m captions, df_j of which have an n-gram of cell j.
    """

    idf: np.ndarray

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32 [n, d]; a text without a word is the zero vector."""
        counts = _hashed(texts, len(self.idf)).toarray() * self.idf
        length = np.linalg.norm(counts, axis=1, keepdims=True)
        return np.asarray(counts / np.where(length > 0, length, 1.0), np.float32)


def fit(texts: Sequence[str], size: int) -> TextEncoder:
    """Fit the encoder on the training captions alone.

    Args:
      texts: training captions.
      size: d, the number of hash cells.

    Raises:
      BadInput: scikit-learn is not installed.
    """
    counts = _hashed(texts, size)
    found = np.asarray((counts != 0).sum(axis=0)).ravel()
    return TextEncoder(np.log((1 + len(texts)) / (1 + found)) + 1.0)


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
