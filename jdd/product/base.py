"""What a run hands over: a product of one of three kinds, each with its recipe and transform.

``images``     a fixed set of labelled images (``product/distilled_set.py``);
``pairs``      images and text vectors, and how alike they ought to be (``product/pairs.py``);
``generator``  a net that gives fresh labelled images each epoch (``product/generator.py``).

Every product lies in ``distilled.npz``. A fixed set of images without weights is written as schema
1, all else as schema 2; both are read (``product/files.py``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from jdd.data.transform import Transform

KINDS = ("images", "pairs", "generator")


class Product(Protocol):
    """A product, as stages and reports see it."""

    @property
    def kind(self) -> str:
        """The kind of product, one of ``KINDS``."""

    @property
    def recipe(self) -> dict[str, Any]:
        """How nets are trained on it, as plain data."""

    @property
    def transform(self) -> Transform:
        """The map between pixels and the space of its images."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed in reading it."""

    @property
    def size(self) -> int:
        """The number of examples of one epoch."""

    def with_recipe(self, recipe: dict[str, Any]) -> Product:
        """Return the same product with another recipe."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as ``.npz``, complete or not at all; the same product gives the same bytes."""
