"""DC's evaluation augmentation against SciPy's rotation and plain NumPy indexing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jdd.augment import dc
from jdd.errors import BadInput

IMAGE = np.random.default_rng(0).standard_normal((12, 10, 2)).astype(np.float32)


@pytest.mark.parametrize("degrees", [-45, -13, 0, 31, 44])
def test_rotation_is_the_cubic_spline_rotation(degrees):
    wanted = ndimage.rotate(IMAGE, degrees, axes=(0, 1), reshape=False, cval=0.3)
    found = dc.rotate(jnp.asarray(IMAGE), jnp.asarray(degrees), jnp.asarray(0.3))
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.parametrize("size", [(9, 12), (12, 8), (14, 11), (10, 10)])
def test_scale_is_nearest_and_centred(size):
    h, w, c = IMAGE.shape
    rows = [int(i * h / size[0]) for i in range(size[0])]
    cols = [int(j * w / size[1]) for j in range(size[1])]
    small = IMAGE[rows][:, cols]
    # The canvas is the larger of both on each axis; then the image's own size is cut out of it.
    tall, broad = max(h, size[0]), max(w, size[1])
    canvas = np.zeros((tall, broad, c), np.float32)
    top, left = (tall - size[0]) // 2, (broad - size[1]) // 2
    canvas[top : top + size[0], left : left + size[1]] = small
    top, left = (tall - h) // 2, (broad - w) // 2
    wanted = canvas[top : top + h, left : left + w]
    found = dc.scale(jnp.asarray(IMAGE), jnp.asarray(size[0]), jnp.asarray(size[1]))
    np.testing.assert_array_equal(found, wanted)


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
