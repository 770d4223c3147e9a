"""DC's evaluation augmentation against SciPy's rotation and plain NumPy indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jdd.augment import dc
from jdd.errors import BadInput

IMAGE = np.random.default_rng(0).standard_normal((12, 10, 2)).astype(np.float32)


SHAPES = pytest.mark.parametrize("shape", [(28, 28), (32, 32), (12, 10), (9, 14)])


def picture(shape):
    return np.random.default_rng(shape).standard_normal((*shape, 2)).astype(np.float32)


@SHAPES
def test_rotation_is_scipys_with_its_middle_cut_out(shape):
    image, (h, w), angles = picture(shape), shape, np.arange(-45, 45)
    turn = jax.jit(jax.vmap(dc.rotate, in_axes=(None, 0, None)))
    found = turn(jnp.asarray(image), jnp.asarray(angles), jnp.asarray(0.3, jnp.float32))
    odd = 0
    for degrees, own in zip(angles, np.asarray(found), strict=True):
        turned = ndimage.rotate(image, degrees, axes=(0, 1), cval=0.3)
        top, left = (turned.shape[0] - h) // 2, (turned.shape[1] - w) // 2
        np.testing.assert_allclose(own, turned[top : top + h, left : left + w], atol=1e-4)
        odd += (turned.shape[0] - h) % 2
    assert odd == {28: 44, 32: 51}.get(h, odd) and 0 < odd < 90  # half a pixel off there


@SHAPES
def test_scale_is_nearest_and_centred_in_a_square(shape):
    image, (h, w), apart = picture(shape), shape, 0
    pairs = [(a, b) for a in range(int(0.8 * h), int(1.2 * h) + 1)
             for b in range(int(0.8 * w), int(1.2 * w) + 1)]  # fmt: skip
    resize = jax.jit(jax.vmap(dc.scale, in_axes=(None, 0, 0)))
    found = resize(jnp.asarray(image), *jnp.asarray(pairs).T)
    for (a, b), own in zip(pairs, np.asarray(found), strict=True):
        rows = [int(i * np.float32(h / a)) for i in range(a)]
        cols = [int(j * np.float32(w / b)) for j in range(b)]
        side = max(a, b, h, w)
        canvas = np.zeros((side, side, 2), np.float32)
        top, left = (side - a) // 2, (side - b) // 2
        canvas[top : top + a, left : left + b] = image[rows][:, cols]
        top, left = (side - h) // 2, (side - w) // 2
        np.testing.assert_array_equal(own, canvas[top : top + h, left : left + w])
        # Where a canvas for each axis would put it elsewhere.
        places = [((side - n) // 2 - (side - full) // 2, (max(n, full) - n) // 2
                   - (max(n, full) - full) // 2) for n, full in ((a, h), (b, w))]  # fmt: skip
        apart += any(one != other for one, other in places)
    assert apart == {28: 24, 32: 36}.get(h, apart) and apart


def test_crop_pads_with_the_mean_pixel():
    mean = np.asarray([0.5, -1.0], np.float32)
    padded = np.broadcast_to(mean, (20, 18, 2)).copy()
    padded[4:16, 4:14] = IMAGE
    found = dc.crop(jnp.asarray(IMAGE), jnp.asarray(1), jnp.asarray(7), jnp.asarray(mean))
    np.testing.assert_allclose(found, padded[1:13, 7:17], atol=1e-6)


def test_every_image_has_an_operation_of_its_own():
    images = jnp.broadcast_to(jnp.asarray(IMAGE), (60, *IMAGE.shape))
    key = jax.random.key(3)
    apply = jax.jit(dc.apply, static_argnums=3)
    found = apply(0, key, images, "crop_scale_rotate")
    assert found.shape == images.shape
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found, apply(0, key, images, "crop_scale_rotate"))
    assert len(np.unique(np.asarray(found).reshape(60, -1).round(4), axis=0)) > 40
    np.testing.assert_array_equal(dc.apply(0, key, images, "none"), images)
    noise = np.asarray(dc.apply(0, key, images, "noise") - images)
    assert 0.0009 < noise.std() < 0.0011


def test_unknown_operations_are_refused():
    with pytest.raises(BadInput, match="did you mean 'rotate'"):
        dc.names("crop_rotat")
    with pytest.raises(BadInput, match="twice"):
        dc.names("crop_crop")
