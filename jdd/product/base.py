"""The product of a run: one of three kinds, each with its recipe and transform.

``images``     a fixed set of labelled images (``product/distilled_set.py``);
``pairs``      images, text vectors and their target similarities (``product/pairs.py``);
``generator``  a net that samples fresh labelled images each epoch (``product/generator.py``).

Every product is stored in ``distilled.npz``. A fixed set of images without weights is written as
schema 1, all others as schema 2; both can be read (``product/files.py``).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Protocol

from jdd.data.transform import Transform

KINDS = ("images", "pairs", "generator")


class Product(Protocol):
    """The interface of a product for stages and reports."""

    @property
    def kind(self) -> str:
        """The kind of product, one of ``KINDS``."""

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe for training nets on it, as plain data."""

    @property
    def transform(self) -> Transform:
        """The map between pixels and the input space of its images."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Assumptions made in reading it."""

    @property
    def size(self) -> int:
        """The number of examples of one epoch."""

    def with_recipe(self, recipe: dict[str, Any]) -> Product:
        """Return the same product with another recipe."""

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as ``.npz``, atomically; equal products give equal bytes."""
