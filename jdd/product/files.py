"""Reading products: one file format, ``.npz`` of plain arrays, for every kind."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdd.errors import BadInput
from jdd.product import distilled_set, generator, pairs
from jdd.product.arrays import read_npz
from jdd.product.base import KINDS
from jdd.product.distilled_set import DistilledSet
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.storage import npz_files, zoo

AnyProduct = DistilledSet | PairSet | GeneratorSet
WEIGHTS = "generator.safetensors"  # of a generator exported as a folder


def set_path(path: str | os.PathLike[str]) -> Path:
    """Return the file of a set: ``path`` itself, or ``distilled.npz`` of a folder that has one.

    Such a folder is that of a run, an export for Hugging Face, or ``zoo:NAME``.

    Raises:
      BadInput: the folder is that of a run that has no set yet; the zoo has no such set.
    """
    found = zoo.local(path)
    if (found / "distilled.npz").is_file():
        return found / "distilled.npz"
    if (found / "config.json").is_file() and not (found / WEIGHTS).is_file():
        raise BadInput(str(found), "a run that has made no set yet", "finish the run first")
    return found


def load(path: str | os.PathLike[str]) -> AnyProduct:
    """Read a product that its ``save`` wrote; nothing in the file is ever executed.

    Raises:
      BadInput: no such file, or it is truncated, foreign, inconsistent, of a newer jdd, or contains
        pickled objects.
    """
    return from_arrays(read_npz(path), str(path))


def diverged(recipe: Mapping[str, Any]) -> str:
    """Return one sentence if a set is the last good one of a run that diverged; '' otherwise."""
    record = recipe.get("diverged")
    if not isinstance(record, Mapping):
        return ""
    words = f"the run that made it diverged at step {record.get('step', 'unknown')}"
    cause = f" ({record['cause']})" if record.get("cause") else ""
    return f"{words}{cause}; this is the set of step {recipe.get('steps', 'unknown')}"


def kind(path: str | os.PathLike[str]) -> str:
    """Return the kind of product in a file; "images" if it names none or is damaged.

    An exported generator is a folder.
    """
    if (Path(path) / WEIGHTS).is_file():
        return "generator"
    try:
        return str(npz_files.read(path, "", ("kind",)).get("kind", "images"))
    except BadInput:  # reading the set reports the damage
        return "images"


def to_arrays(product: AnyProduct) -> dict[str, np.ndarray]:
    """Return a product as the named arrays of its file."""
    if isinstance(product, PairSet):
        return pairs.to_arrays(product)
    if isinstance(product, GeneratorSet):
        return generator.to_arrays(product)
    return distilled_set.to_arrays(product)


def from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> AnyProduct:
    """Build a product from its arrays; ``where`` is the file's name in errors.

    Raises:
      BadInput: an unknown kind, a newer schema, or inconsistent arrays.
    """
    kind = str(arrays.get("kind", "images"))
    if kind not in KINDS:
        raise BadInput(where, f"a product of kind {kind!r}", f"one of {', '.join(KINDS)}")
    distilled_set.validate_version(arrays, where)
    if kind == "pairs":
        return pairs.from_arrays(arrays, where)
    if kind == "generator":
        return generator.from_arrays(arrays, where)
    return distilled_set.from_arrays(arrays, where)
