"""IDC's augmentation: which operations a call applies, and its draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.augment import dsa, idc
from jdd.errors import BadInput

IMAGES = jax.random.normal(jax.random.key(0), (4, 8, 8, 3))
KEY = jax.random.key(5)


def by_hand(op, strategy, images, siamese):
    """The operations of a strategy one after another, by DSA's own functions."""
    one = [name for name in strategy.split("_") if name in ("crop", "scale", "rotate")]
    order = (("pad", "crop"), ("flip", "flip"), ("color", "color"), ("", ""), ("cutout", "cutout"))
    for i, (name, alone) in enumerate(order):
        own = jax.random.fold_in(KEY, i)
        if not name and one:
            images = dsa.apply(0, own, images, one[op], siamese)
        elif name and name in strategy.split("_"):
            images = dsa.apply(0, own, images, alone, siamese)
    return images


@pytest.mark.parametrize("siamese", [False, True])
@pytest.mark.parametrize(
    "strategy", ["color_crop_cutout", "pad_flip_color_crop_scale_rotate", "cutout", "scale"]
)
def test_all_named_operations_apply_but_one_of_crop_scale_and_rotate(strategy, siamese):
    count = sum(name in idc.ONE_OF for name in strategy.split("_"))
    for op in range(max(1, count)):
        found = idc.apply(jnp.int32(op), KEY, IMAGES, strategy, siamese)
        np.testing.assert_allclose(
            found, by_hand(op, strategy, IMAGES, siamese), rtol=1e-5, atol=1e-5
        )
    drawn = {int(idc.draw_op(jax.random.key(i), strategy)) for i in range(30)}
    assert drawn == set(range(max(1, count)))


def test_siamese_calls_treat_sets_of_any_size_alike():
    found = idc.siamese(KEY, IMAGES, "color_crop_cutout", False)
    alone = idc.siamese(KEY, IMAGES[2:3], "color_crop_cutout", False)
    np.testing.assert_allclose(found[2:3], alone, atol=1e-6)
    assert float(jnp.abs(found - IMAGES).max()) > 0.1


def test_nothing_named_changes_nothing_and_others_are_refused():
    np.testing.assert_array_equal(idc.apply(0, KEY, IMAGES, "none"), IMAGES)
    with pytest.raises(BadInput, match="config.augment: unknown operation 'colour'"):
        idc.names("colour_crop")
