"""Retrieval: two towers find the texts of an image and the images of a text.

    R@k = share of queries whose min(k, m) nearest of m candidates, by cosine, hold a right one

A candidate is right where its meaning is the query's (``data.pairs.PairSplit``). Ties count against
the net, so that towers that make all embeddings equal have a recall of 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd.data.pairs import PairSplit
from jdd.evaluation.predict import embed
from jdd.nets import Net
from jdd.run.session import Session

Tree = Any
KS = (1, 5, 10)
_ROWS = 256  # queries at a time: bounds the matrix of similarities


class Retrieval(NamedTuple):
    """Recall at 1, 5 and 10, image to text (TR) and text to image (IR); their mean is primary."""

    name: str = "retrieval"

    @property
    def metrics(self) -> Mapping[str, str]:
        """Mean recall, then the six recalls that it is the mean of."""
        ways = {"tr": "image to text", "ir": "text to image"}
        own = {f"{way}{k}": f"recall@{k}, {words}" for way, words in ways.items() for k in KS}
        return {"recall": "mean recall", **own}

    def problems(self, test: PairSplit) -> dict[str, PairSplit]:
        """Return all test pairs."""
        return {"recall": test}

    def wanted(self, labels: np.ndarray) -> np.ndarray:
        """Return the labels: pairs have no others."""
        return labels

    def measure(
        self,
        net: Net,
        variables: Tree,
        problems: Mapping[str, PairSplit],
        session: Session | None = None,
    ) -> np.ndarray:
        """Return every recall of each net, ``[nets, 7]``."""
        test, found = problems["recall"], []
        for i in range(len(jax.tree.leaves(variables)[0])):
            own = jax.tree.map(lambda a, i=i: a[i], variables)
            image, text = (
                embed(net, own, name, values, session)
                for name, values in (("image", test.images), ("text", test.text))
            )
            found.append(recalls(image, text, test.meaning, test.meaning[test.image_of]))
        return np.asarray(found)


RETRIEVAL = Retrieval()


def recalls(
    image: np.ndarray, text: np.ndarray, images: np.ndarray, texts: np.ndarray
) -> list[float]:
    """Return mean recall, then recall at 1, 5, 10 image to text, and text to image.

    Args:
      image, text: unit vectors, ``[n, size]`` and ``[m, size]``.
      images, texts: their meanings, int ``[n]`` and ``[m]``.
    """
    ways = [
        (ranks(image, text, images, texts), len(text)),
        (ranks(text, image, texts, images), len(image)),
    ]
    # A query without a right candidate has rank m: it misses at every k.
    found = [float(np.mean(ranked < min(k, m))) for ranked, m in ways for k in KS]
    return [float(np.mean(found)), *found]


def ranks(
    queries: np.ndarray, candidates: np.ndarray, meant: np.ndarray, meanings: np.ndarray
) -> np.ndarray:
    """Return how many wrong candidates are at least as near as the nearest right one, ``[n]``.

    A query without a right candidate has rank m, the number of candidates.
    """
    found = []
    for lo in range(0, len(queries), _ROWS):
        near = np.asarray(queries[lo : lo + _ROWS], np.float64) @ candidates.T
        near = np.where(np.isfinite(near), near, -np.inf)  # a net that diverged finds nothing
        right = meant[lo : lo + _ROWS, None] == meanings[None]
        best = np.max(np.where(right, near, -np.inf), axis=1)
        wrong = np.sum(~right & (near >= best[:, None]), axis=1)
        found.append(np.where(right.any(axis=1), wrong, len(candidates)))
    return np.concatenate(found)


def chance(test: PairSplit) -> dict[str, float]:
    """Return the expected recalls of a random ranking of the candidates, by metric.

        1 - C(m - r, k) / C(m, k)  for a query with r right ones among m candidates

    Args:
      test: the split whose images and captions are queries and candidates.
    """
    images, texts = test.meaning, test.meaning[test.image_of]
    found = [
        float(np.mean(_hit_by_chance(queries, candidates, k)))
        for queries, candidates in ((images, texts), (texts, images))
        for k in KS
    ]
    return dict(zip(RETRIEVAL.metrics, [float(np.mean(found)), *found], strict=True))


def _hit_by_chance(queries: np.ndarray, candidates: np.ndarray, k: int) -> np.ndarray:
    """Return the probability that k random candidates hold a right one, by query."""
    m, missed = len(candidates), np.ones(len(queries))
    right = np.bincount(candidates, minlength=int(queries.max()) + 1)[queries]
    for drawn in range(min(k, m)):
        missed *= np.maximum(m - right - drawn, 0) / (m - drawn)
    return 1 - missed
