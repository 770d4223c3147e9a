"""All operations of a strategy in their order."""

from __future__ import annotations

import jax
import numpy as np

from jdd import augment
from jdd.augment import dsa


def test_every_operation_is_applied_in_order():
    kind = augment.kind("diffaug")
    images = jax.random.normal(jax.random.key(0), (5, 8, 8, 1))
    key, strategy = jax.random.key(1), "color_crop"
    assert kind.names(strategy) == ("color", "crop") and kind.draw_op(key, strategy) == 0
    found = kind.apply(0, key, images, strategy)
    rest, first = jax.random.split(key)
    _, second = jax.random.split(rest)
    wanted = dsa.apply(0, second, dsa.apply(0, first, images, "color"), "crop")
    np.testing.assert_array_equal(found, wanted)
    assert (found != images).mean() > 0.5
    np.testing.assert_array_equal(kind.apply(0, key, images, "none"), images)
