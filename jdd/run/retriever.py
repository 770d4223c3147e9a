"""Retrieval in one's own pictures with two towers trained on a set of pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd.data import text
from jdd.data.sources import pixels
from jdd.data.text import Encoder
from jdd.errors import BadInput
from jdd.evaluation import rules, train_eval
from jdd.evaluation.predict import embed
from jdd.nets import Net
from jdd.product.pairs import PairSet
from jdd.run.context import make_towers, validate_weights
from jdd.schema.pairs import Lora, Towers
from jdd.stages import pairs as stage
from jdd.storage import regular
from jdd.storage.files import hidden

Tree = Any


class Retriever(NamedTuple):
    """Two trained towers, and what brings pictures and words into their spaces.

    Attributes:
      net, variables: the towers.
      pairs: the set that they were trained on.
      encode: texts to vectors float32 [n, d], as the set's captions were encoded.
    """

    net: Net
    variables: Tree
    pairs: PairSet
    encode: Encoder

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Return the unit embeddings of texts, float32 ``[n, size]``.

        Raises:
          BadInput: a text without a word.
        """
        for one in texts:
            if not one.strip():
                raise BadInput("texts", repr(one), "words")
        return embed(self.net, self.variables, "text", self.encode(list(texts)))

    def embed_pictures(self, files: Sequence[str | Path]) -> np.ndarray:
        """Return the unit embeddings of pictures, float32 ``[n, size]``.

        They are read as training pictures are and, if the set's are square, resized to their size.

        Raises:
          BadInput: a file that cannot be read, or is no picture of the set's size.
        """
        shape = tuple(self.pairs.images.shape[1:])
        images = np.empty((len(files), *shape), np.float32)
        for i, file in enumerate(files):
            images[i] = _picture(Path(file), shape)
        return embed(self.net, self.variables, "image", self.pairs.transform.forward(images))

    def search(
        self, words: str, pictures: str | Path | Sequence[str | Path], k: int = 10
    ) -> list[tuple[str, float]]:
        """Return the ``k`` pictures nearest to words, nearest first, each with its cosine.

        Args:
          pictures: a folder, searched at any depth, or files.
          k: at most the number of pictures are returned.

        Raises:
          BadInput: no pictures, or as ``embed_pictures`` and ``embed_texts``.
        """
        files = _files(pictures)
        cosines = self.embed_pictures(files) @ self.embed_texts([words])[0]
        nearest = np.argsort(-cosines, kind="stable")[: max(k, 0)]
        return [(str(files[i]), float(cosines[i])) for i in nearest]


def retriever(pairs: PairSet, seed: int = 0, where: str = "the set's recipe") -> Retriever:
    """Train two towers on a set of pairs by its recipe.

    With the recipe's own seed they are the first ones that the evaluation of the set trains.

    Args:
      seed: of initial weights and batches.

    Raises:
      BadInput: a recipe by which towers cannot be trained, or by which new text cannot be encoded.
    """
    rules.validate_recipe(pairs, where)
    recipe = pairs.recipe
    validate_weights(recipe)
    encode = text.from_json(recipe.get("text") or {})
    if encode.size != pairs.text.shape[1]:
        found = f"text vectors of {pairs.text.shape[1]}, and an encoder of {encode.size}"
        raise BadInput(where, found, "the encoder of the set's captions")
    h, w, c = pairs.images.shape[1:]
    options = tuple(sorted((recipe["net"].get("options") or {}).items()))
    towers = Towers(**(recipe.get("towers") or {}))
    net = make_towers(
        recipe["net"]["name"],
        (h, w, c),
        encode.size,
        options,
        towers,
        Lora(**recipe.get("lora", {})),
    )
    inputs, labels = jax.tree.map(jax.numpy.asarray, stage.material(pairs))
    variables = train_eval.trained(net, train_eval.plan(pairs), inputs, labels, seed)
    return Retriever(net, variables, pairs, encode)


def _files(pictures: str | Path | Sequence[str | Path]) -> list[Path]:
    if not isinstance(pictures, str | Path):
        found = [Path(file) for file in pictures]
    else:
        place = Path(pictures).expanduser()
        found = [place] if place.is_file() else sorted(filter(_is_picture, place.rglob("*")))
    if not found:
        raise BadInput(
            "pictures", f"none in {pictures}", "a folder of .jpg or .png files, or files"
        )
    return found


def _is_picture(file: Path) -> bool:
    return file.is_file() and file.name.lower().endswith(pixels.SUFFIXES) and not hidden(file.name)


def _picture(file: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return one picture, float32 ``[h, w, c]`` in [0, 1]."""
    h, w, c = shape
    try:
        data = regular.read_bytes(file)
    except OSError as error:
        raise BadInput("pictures", f"{file}: {error.strerror}", "files that can be read") from None
    image = pixels.decode(data, str(file), c, h if h == w else 0).array
    if image.shape != shape:
        found = f"{image.shape[1]}x{image.shape[0]} pixels"
        raise BadInput(str(file), found, f"{w}x{h}, as the pictures of the set")
    return np.asarray(image, np.float32) / np.float32(255.0)
