"""Bytes that a product takes: pixels at their precision, labels, weights of a generator."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdd.data.transform import Transform
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet

_OFF = 0.1  # how far from a whole number, of 255, rounding leaves an 8-bit pixel


class Bytes(NamedTuple):
    """Bytes of a product, by what they hold.

    pixels: of all images at ``bits`` a number.
    bits:   8 if every pixel is one of 256 values, so that a picture holds it without loss; 32 of
            other images, as ``distilled.npz`` has them; 0 without images.
    labels: of the labels in the set itself: a class int32, a soft label float32 a class; weights of
            images and, of pairs, similarities.
    stored: of stored labels and their views, as they lie on disk.
    texts:  of text vectors, float32.
    net:    of a generator's weights, float32.
    count:  the number of classes, of pairs the number of pairs.
    """

    pixels: int
    bits: int
    labels: int
    stored: int
    texts: int
    net: int
    count: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.pixels + self.labels + self.stored + self.texts + self.net

    @property
    def each(self) -> float:
        """The bytes a class, of pairs the bytes a pair."""
        return self.total / self.count

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``bytes`` of result.json; parts that are 0 are left out."""
        parts = {name: n for name, n in self._asdict().items() if n and name != "count"}
        per = "per_pair" if self.texts else "per_class"
        return {per: self.each, "total": self.total, **parts}


def of(product: AnyProduct, stored: int = 0) -> Bytes:
    """Return the bytes of a product.

    Args:
      product: a set of images, a generator or a set of pairs.
      stored: bytes of its stored labels on disk; 0 if it has none.
    """
    if isinstance(product, GeneratorSet):
        return Bytes(0, 0, 0, 0, 0, product.stored_bytes, product.classes)
    bits = precision(product.images, product.transform)
    pixels = product.images.size * bits // 8
    if isinstance(product, PairSet):
        found = product.similarity
        similarity = 0 if found is None else 4 * (found.w.size + found.left.size + found.right.size)
        return Bytes(pixels, bits, similarity, 0, 4 * product.text.size, 0, product.size)
    return images(product, bits, stored)


def images(product: DistilledSet, bits: int, stored: int = 0) -> Bytes:
    """Return the bytes of a set of images with ``bits`` a number."""
    own = 4 * (np.size(product.labels) + (0 if product.weights is None else product.weights.size))
    return Bytes(product.images.size * bits // 8, bits, own, stored, 0, 0, product.classes)


def precision(images: np.ndarray, transform: Transform) -> int:
    """Return the bits of a number of images that lose nothing: 8, or 32 of float32.

    8 where every pixel p in [0, 1] has 255 p within 0.1 of a whole number from 0 to 255: stored in
    8 bits it is the same within the rounding of the normalisation. Whitening of the kind 'kip' does
    not lead back to pixels: 32.

    Args:
      images: ``[n, h, w, c]`` in the space of ``transform``.
      transform: leads back to pixels.
    """
    if transform.zca_image is not None:
        return 32
    levels = 255 * np.asarray(transform.inverse(images), np.float64)
    whole = np.clip(np.round(levels), 0, 255)
    return 8 if bool(np.all(np.abs(levels - whole) < _OFF)) else 32
