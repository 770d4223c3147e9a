"""FRePo's augmentation: each operation against a pixel-by-pixel formula, draws, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.augment import frepo
from jdd.errors import BadInput

ALL = "flip_color_crop_rotate_translate_cutout"


def batch(n, h, w, c=3):
    return np.random.default_rng([n, h, w, c]).normal(size=(n, h, w, c))


def read(image, y, x):
    """Bilinear value at (y, x): the four pixels around, each moved to the nearest that exists."""
    h, w, _ = image.shape
    top, left = int(np.floor(y)), int(np.floor(x))
    total = 0.0
    for row, by_row in ((top, 1 - (y - top)), (top + 1, y - top)):
        for col, by_col in ((left, 1 - (x - left)), (left + 1, x - left)):
            value = image[min(max(row, 0), h - 1), min(max(col, 0), w - 1)]
            total = total + by_row * by_col * value
    return total


def resampled(images, place):
    """``out[n, i, j] = read(images[n], *place(n, i, j))``."""
    out = np.zeros_like(images)
    for n, i, j in np.ndindex(images.shape[:3]):
        out[n, i, j] = read(images[n], *place(n, i, j))
    return out


@pytest.mark.parametrize(("h", "w"), [pytest.param(8, 8, marks=pytest.mark.slow), (5, 9)])
def test_resampling_replicates_the_edge(h, w):
    images, draw = batch(4, h, w), np.random.default_rng(1)
    cy, cx = (h - 1) / 2, (w - 1) / 2
    a, b = draw.uniform(-3, 3, (2, 4))
    by, angle = draw.uniform(0.8, 1.25, 4), draw.uniform(-0.3, 0.3, 4)

    def turned(n, i, j):
        cos, sin = np.cos(angle[n]), np.sin(angle[n])
        return (j - cx) * sin + (i - cy) * cos + cy, (j - cx) * cos - (i - cy) * sin + cx

    with jax.enable_x64(True):
        found = {
            "translate": frepo.translate(*map(jnp.asarray, (images, a, b))),
            "zoom": frepo.zoom(*map(jnp.asarray, (images, by, a, b))),
            "rotate": frepo.rotate(jnp.asarray(images), jnp.asarray(angle)),
        }
    wanted = {
        "translate": resampled(images, lambda n, i, j: (i + a[n], j + b[n])),
        "zoom": resampled(
            images,
            lambda n, i, j: ((i - cy) / by[n] + cy + a[n], (j - cx) / by[n] + cx + b[n]),
        ),
        "rotate": resampled(images, turned),
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], atol=1e-12, err_msg=name)


def test_an_operation_of_the_strategy_is_drawn_evenly():
    keys = jax.random.split(jax.random.key(0), 6000)
    ops = jax.vmap(lambda key: frepo.draw_op(key, ALL))(keys)
    share = np.bincount(ops, minlength=6) / len(keys)
    np.testing.assert_allclose(share, 1 / 6, atol=0.02)


@jax.jit
def each(key, images):
    return {name: frepo.apply(0, key, images, name) for name in ALL.split("_")}


def test_parameters_are_each_images_own_and_within_their_range():
    n, h, w = 500, 12, 8
    ramp = np.broadcast_to(np.arange(h)[:, None, None] + 100.0 * np.arange(w)[:, None], (h, w, 1))
    rows = np.broadcast_to(np.arange(h, dtype=float)[:, None, None], (h, w, 1))
    for image, axis, size in ((rows, 0, h), (rows.transpose(1, 0, 2), 1, h)):
        images = jnp.asarray(np.broadcast_to(image, (n, *image.shape)), jnp.float32)
        out = each(jax.random.key(axis), images)
        # The middle of a ramp says where it was read: no border comes near.
        middle = np.take(np.asarray(out["translate"]), size // 2, axis + 1).mean((1, 2))
        shift = middle - size // 2
        assert 0.9 * size / 8 < np.abs(shift).max() <= size / 8 + 1e-4
        step = np.diff(np.asarray(out["crop"]), axis=axis + 1)[:, 4:7, 4:7].mean((1, 2, 3))
        assert 0.8 - 1e-3 < step.min() < 0.83 and 1.2 < step.max() < 1.25 + 1e-3
        assert abs(np.log(step).mean()) < 0.03  # as many zoom in as out
    images = jnp.asarray(np.broadcast_to(ramp, (n, h, w, 1)), jnp.float32)
    flipped = np.asarray(each(jax.random.key(2), images)["flip"])
    mirrored = (flipped == np.asarray(images)[:, :, ::-1]).all((1, 2, 3))
    assert 0.4 < mirrored.mean() < 0.6
    assert ((flipped == np.asarray(images)).all((1, 2, 3)) | mirrored).all()


def test_the_hole_is_a_quarter_and_whole():
    images = jnp.ones((400, 12, 8, 2))
    out = np.asarray(each(jax.random.key(0), images)["cutout"])
    assert ((out == 0).sum((1, 2, 3)) == 3 * 2 * 2).all()
    hit = (out == 0).any((0, 3))
    assert hit.all()  # it comes everywhere


def test_color_is_brightness_saturation_and_contrast():
    images = batch(300, 3, 3)
    out = np.asarray(each(jax.random.key(0), jnp.asarray(images, jnp.float32))["color"])
    shift = out.mean((1, 2, 3)) - images.mean((1, 2, 3))
    assert 0.23 < np.abs(shift).max() <= 0.25 + 1e-5

    def ratio(a, b):
        return np.sqrt(np.square(a).sum((1, 2, 3)) / np.square(b).sum((1, 2, 3)))

    def parts(x):  # contrast scales the grey picture, both scale what is beside it
        grey = x.mean(3, keepdims=True)
        return grey - x.mean((1, 2, 3), keepdims=True), x - grey

    contrast, both = (ratio(a, b) for a, b in zip(parts(out), parts(images), strict=True))
    for found in (np.log(contrast), np.log(both / contrast)):
        assert 0.23 < np.abs(found).max() <= 0.25 + 1e-4 and abs(found.mean()) < 0.03


def test_siamese_and_none():
    image = batch(1, 6, 6)
    images = jnp.asarray(np.repeat(image, 3, 0), jnp.float32)
    key = jax.random.key(4)
    for op in range(6):
        out = np.asarray(frepo.apply(op, key, images, ALL, siamese=True))
        np.testing.assert_allclose(out, out[:1].repeat(3, 0), atol=1e-6)
    np.testing.assert_array_equal(frepo.apply(0, key, images, "none"), images)


@pytest.mark.parametrize("strategy", ["flip_scale", "crop_crop"])
def test_refusals(strategy):
    with pytest.raises(BadInput, match="config.augment"):
        frepo.names(strategy)
