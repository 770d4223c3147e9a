"""A synthetic set of image-text pairs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jdd.data.transform import Transform
from jdd.errors import BadInput
from jdd.product import arrays as plain
from jdd.product.distilled_set import read_recipe
from jdd.storage.files import write_atomic


class Similarity(NamedTuple):
    """Target similarity of pair i's image and pair j's text: S = diag(w) + (alpha / r) L R^T.

    Attributes:
      w: float32 [n].
      left, right: L and R, float32 [n, r]; r may be 0.
      alpha: a number.
    """

    w: np.ndarray
    left: np.ndarray
    right: np.ndarray
    alpha: float

    def matrix(self) -> np.ndarray:
        """Return S, float32 [n, n]."""
        rank = self.left.shape[1]
        own = np.diag(self.w)
        return own + (self.alpha / rank) * self.left @ self.right.T if rank else own


class PairSet(NamedTuple):
    """A synthetic set of pairs in the input space of the towers.

    Attributes:
      images: float32 [n, h, w, c], normalised.
      text: vectors of the texts, float32 [n, d]; a synthetic one need not be any sentence's.
      recipe: how to train on the set, as plain data; ``task`` is "retrieval", ``text`` is the text
        encoding, ``captions`` are the training captions nearest to ``text``.
      transform: maps pixels in [0, 1] to the space of ``images``, and back.
      rates: learned rates by branch ("image", "text"); {} if none was learned.
      similarity: None for the identity.
      notes: sentences on assumptions made in reading the set; not saved.
      result: of the run that made it, as for ``DistilledSet``; not saved.
    """

    images: np.ndarray
    text: np.ndarray
    recipe: dict[str, Any]
    transform: Transform
    rates: dict[str, float] = {}
    similarity: Similarity | None = None
    notes: tuple[str, ...] = ()
    result: Mapping[str, Any] = MappingProxyType({})

    @property
    def kind(self) -> str:
        """The kind of product, one of ``base.KINDS``."""
        return "pairs"

    @property
    def lr(self) -> None:
        """The single learned rate: always None, since pairs have ``rates`` by branch."""
        return None

    @property
    def applied_rates(self) -> dict[str, float]:
        """The learned rates that towers are trained at: {} if the recipe states a rate instead."""
        stated = (self.recipe.get("train") or {}).get("lr")
        return self.rates if stated is None else {}

    @property
    def size(self) -> int:
        """The number of pairs."""
        return len(self.images)

    @property
    def captions(self) -> tuple[str, ...]:
        """The training caption nearest to each text vector; () if the recipe has none."""
        return tuple(self.recipe.get("captions") or ())

    def with_recipe(self, recipe: dict[str, Any]) -> PairSet:
        """Return the same pairs with another recipe."""
        return self._replace(recipe=recipe)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the pairs as ``.npz``, atomically.

        Raises:
          BadInput: the set is inconsistent, or ``path`` cannot be written.
        """
        found = to_arrays(validate(self, str(path)))
        return write_atomic(path, lambda file: np.savez(file, **found))  # type: ignore[arg-type]


def to_arrays(pairs: PairSet) -> dict[str, np.ndarray]:
    """Return the set as named plain arrays of schema 2."""
    found = {
        "schema_version": np.asarray(2, np.int32),
        "kind": np.asarray("pairs"),
        "images": np.ascontiguousarray(pairs.images, np.float32),
        "text_embeddings": np.ascontiguousarray(pairs.text, np.float32),
        "recipe": np.asarray(plain.recipe_json(pairs.recipe)),
    }
    found |= plain.transform_arrays(pairs.transform)
    found |= {f"rates/{name}": np.asarray(r, np.float64) for name, r in sorted(pairs.rates.items())}
    if pairs.similarity is not None:
        s = pairs.similarity
        found |= {
            "similarity/w": np.asarray(s.w, np.float32),
            "similarity/L": np.asarray(s.left, np.float32),
            "similarity/R": np.asarray(s.right, np.float32),
            "similarity/alpha": np.asarray(s.alpha, np.float64),
        }
    return found


def from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> PairSet:
    """Build a set from the arrays of ``to_arrays``; ``where`` is the file's name in errors.

    Raises:
      BadInput: an array is missing, or the arrays are inconsistent.
    """
    plain.require(arrays, ("images", "text_embeddings", "recipe"), where)
    names = ("w", "L", "R", "alpha")
    similarity = None
    if any(f"similarity/{name}" in arrays for name in names):
        plain.require(arrays, tuple(f"similarity/{name}" for name in names), where)
        w, left, right = (np.asarray(arrays[f"similarity/{name}"]) for name in names[:3])
        similarity = Similarity(w, left, right, plain.scalar(arrays, "similarity/alpha", where))
    rates = {
        name.removeprefix("rates/"): plain.scalar(arrays, name, where)
        for name in arrays
        if name.startswith("rates/")
    }
    recipe = read_recipe(str(arrays["recipe"]), where)
    found = PairSet(
        np.asarray(arrays["images"]),
        np.asarray(arrays["text_embeddings"]),
        recipe,
        plain.transform_of(arrays, recipe, where),
        rates,
        similarity,
    )
    return validate(found, where)


def validate(pairs: PairSet, where: str) -> PairSet:
    """Return the set with its arrays in their declared types.

    Raises:
      BadInput: shapes, rates, similarity, transform and recipe are inconsistent.
    """
    images = plain.floats(pairs.images, "images", 4, where)
    text = plain.floats(pairs.text, "text_embeddings", 2, where)
    n = len(images)
    if len(text) != n:
        raise BadInput(where, f"{n} images and {len(text)} texts", "a text vector for every image")
    for name, rate in pairs.rates.items():
        if name not in ("image", "text") or not 0 < rate < np.inf:
            found = f"rate {name} is {rate:g}"
            raise BadInput(where, found, "rates image and text, finite numbers above 0")
    if pairs.rates and set(pairs.rates) != {"image", "text"}:
        raise BadInput(
            where, f"a rate of {', '.join(pairs.rates)} alone", "image and text, or none"
        )
    words = pairs.recipe.get("captions") or []
    if not isinstance(words, list | tuple) or not all(isinstance(w, str) for w in words):
        raise BadInput(where, f"recipe.captions is {words!r:.60}", "a list of texts")
    if words and len(words) != n:
        raise BadInput(where, f"{len(words)} captions of {n} pairs", "one for each, or none")
    similarity = pairs.similarity
    if similarity is not None:
        w = plain.floats(similarity.w, "similarity/w", 1, where)
        left = plain.floats(similarity.left, "similarity/L", 2, where, empty=True)
        right = plain.floats(similarity.right, "similarity/R", 2, where, empty=True)
        if not len(w) == len(left) == len(right) == n or left.shape != right.shape:
            found = f"similarity of shapes {[list(a.shape) for a in (w, left, right)]}"
            raise BadInput(where, found, f"[{n}], [{n}, r] and [{n}, r]")
        if not np.isfinite(similarity.alpha):
            raise BadInput(where, f"similarity/alpha is {similarity.alpha}", "a finite number")
        similarity = Similarity(w, left, right, float(similarity.alpha))
    plain.validate_transform(pairs.transform, images.shape[1:], where)
    rates = {name: float(rate) for name, rate in sorted(pairs.rates.items())}
    recipe = plain.as_read(pairs.recipe)
    return pairs._replace(
        images=images, text=text, rates=rates, similarity=similarity, recipe=recipe
    )
