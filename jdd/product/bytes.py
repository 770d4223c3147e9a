"""Bytes that a product takes: pixels at their precision, labels, weights of a generator."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdd.data.transform import Transform
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet

# Steps between black and white: of 8-bit pictures, and of scikit-learn's digits.
_STEPS = (255, 16)
_OFF = 0.1 / 255  # how far rounding in the normalisation moves a pixel
_ROWS = 64  # images at a time


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
    units:  the number of classes, of pairs the number of pairs.
    """

    pixels: int
    bits: int
    labels: int
    stored: int
    texts: int
    net: int
    units: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.pixels + self.labels + self.stored + self.texts + self.net

    @property
    def each(self) -> float:
        """The bytes a class, of pairs the bytes a pair."""
        return self.total / self.units

    def to_json(self) -> dict[str, Any]:
        """Return the entry ``bytes`` of result.json; parts that are 0 are left out."""
        parts = {name: n for name, n in self._asdict().items() if n and name != "units"}
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

    8 where every pixel is k / 255, or k / 16, of a whole number k: stored in 8 bits it is the same
    within the rounding of the normalisation. Whitening of the kind 'kip' does not lead back to
    pixels: 32.

    Args:
      images: ``[n, h, w, c]`` in the space of ``transform``.
      transform: leads back to pixels.
    """
    if transform.zca_image is not None:
        return 32
    if transform.zca_matrix is not None and transform.zca_inverse is None:
        matrix = transform.zca_matrix.astype(np.float64)  # inverted once, not for every block
        transform = transform._replace(zca_inverse=np.linalg.inv(matrix).astype(np.float32))
    left = set(_STEPS)
    for lo in range(0, len(images), _ROWS):
        pixels = np.asarray(transform.inverse(images[lo : lo + _ROWS]), np.float64)
        left = {steps for steps in left if _whole(pixels, steps)}
        if not left:
            return 32
    return 8


def _whole(pixels: np.ndarray, steps: int) -> bool:
    """Return whether all pixels are on one of ``steps + 1`` levels from 0 to 1."""
    levels = np.clip(np.round(steps * pixels), 0, steps) / steps
    return bool(np.all(np.abs(pixels - levels) < _OFF))
