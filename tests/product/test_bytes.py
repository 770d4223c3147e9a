"""Bytes of products against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jdd.data.transform import normalisation
from jdd.product import bytes as size
from jdd.product.distilled_set import DistilledSet, make_recipe
from jdd.report import plain

SHAPE = (6, 4, 4, 3)
TRANSFORM = normalisation(np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.25]))
NUMBERS = 6 * 4 * 4 * 3


def made(pixels, labels, kind="hard", weights=None):
    recipe = make_recipe(class_names=["a", "b", "c"])
    images = TRANSFORM.forward(pixels)
    return DistilledSet(images, labels, kind, None, recipe, TRANSFORM, weights=weights)


@pytest.fixture
def draw():
    return np.random.default_rng(0)


def test_pixels_of_256_values_take_a_byte_and_learned_ones_four(draw):
    whole = draw.integers(0, 256, SHAPE)
    labels = np.repeat(np.arange(3, dtype=np.int32), 2)
    cases = [(whole / 255, 8), (whole % 17 / 16, 8), (whole / 255 + 0.3 / 255, 32)]
    for pixels, bits in [*cases, (whole / 254, 32)]:
        found = size.of(made(pixels, labels))
        assert (found.bits, found.pixels) == (bits, NUMBERS * bits // 8)
        assert found.each == (found.pixels + 4 * 6) / 3


def test_labels_weights_and_stored_labels_are_counted(draw):
    soft = draw.random((6, 3)).astype(np.float32)
    found = size.of(made(draw.random(SHAPE), soft, "probabilities", np.ones(6)), stored=1000)
    assert (found.labels, found.stored) == (4 * 6 * 3 + 4 * 6, 1000)
    assert found.to_json() == {
        "per_class": (4 * NUMBERS + 96 + 1000) / 3,
        "total": 4 * NUMBERS + 96 + 1000,
        "pixels": 4 * NUMBERS,
        "bits": 32,
        "labels": 96,
        "stored": 1000,
    }
    assert plain.weight(found.to_json()) == "749 B a class"
    assert plain.parts(found.to_json()).startswith("pixels of 32 bits 1.15 kB, labels 96 B, stored")
