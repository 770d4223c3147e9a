"""RandAugment against PIL, operation by operation; its draws; its place in a view."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from jdd.augment import randaugment, views
from jdd.augment.randaugment import OPS
from jdd.errors import BadInput

H, W = 20, 32
apply = jax.jit(randaugment.apply)


def pictures(channels: int) -> np.ndarray:
    """Noise, a ramp of few values, and one value alone; large enough to be equalised."""
    draw = np.random.default_rng(channels)
    ramp = np.arange(H * W * channels).reshape(H, W, channels) % 97 + 30
    flat = np.full((H, W, channels), 77)
    return np.stack([draw.integers(0, 256, (H, W, channels)), ramp, flat]).astype(np.uint8)


def by_pil(pixels: np.ndarray, name: str, s: float) -> np.ndarray:
    image = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    matrix = {
        "shear_x": (1, s, 0, 0, 1, 0), "shear_y": (1, 0, 0, s, 1, 0),
        "translate_x": (1, 0, -s, 0, 1, 0), "translate_y": (1, 0, 0, 0, 1, -s),
    }.get(name)  # fmt: skip
    if matrix:
        found = image.transform(
            image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST
        )
    elif name == "rotate":
        found = image.rotate(s, Image.Resampling.NEAREST)
    elif name in ("brightness", "color", "contrast", "sharpness"):
        found = getattr(ImageEnhance, name.capitalize())(image).enhance(1 + s)
    elif name == "posterize":
        found = ImageOps.posterize(image, int(s))
    elif name == "solarize":
        found = ImageOps.solarize(image, s)
    else:
        found = {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}.get(
            name, lambda image: image
        )(image)
    return np.asarray(found).reshape(pixels.shape).astype(int)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_is_that_of_pil(channels):
    x = pictures(channels)
    for magnitude, sign in ((9, 1), (27, -1)):
        given = randaugment.strengths(magnitude, (H, W))
        for i, name in enumerate(OPS):
            s = float(given[i]) * (sign if name in randaugment.SIGNED else 1)
            ops, strength = np.full((3, 1), i, np.int32), np.full((3, 1), s, np.float32)
            found = np.asarray(apply(jnp.asarray(x, jnp.int32), ops, strength))
            wanted = np.stack([by_pil(one, name, s) for one in x])
            # A product that ends at a whole number is rounded either way.
            away = np.abs(found - wanted)
            assert (away > 1).mean() < 0.002 and (away > 0).mean() < 0.02, (name, s)
            changed = name not in ("identity", *["color"] * (channels == 1))
            assert (np.abs(found - x).max() > 0) == changed, name


def test_strengths_are_torchvisions_at_magnitude_9():
    found = dict(zip(OPS, randaugment.strengths(9, (64, 32)).tolist(), strict=True))
    wanted = {
        "shear_x": 0.09, "translate_x": 4, "translate_y": 8, "rotate": 9, "color": 0.27,
        "posterize": 7, "solarize": 178.5, "equalize": 0,
    }  # fmt: skip
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name


def test_draws_are_uniform_and_half_of_the_signed_ones_are_negative():
    ops, strength = randaugment.draw(jax.random.key(0), 5000, (8, 8), 2, 9)
    assert ops.shape == strength.shape == (5000, 2)
    np.testing.assert_allclose(np.bincount(np.ravel(ops)) / 1e4, 1 / 14, atol=0.01)
    signed = np.isin(ops, [OPS.index(name) for name in randaugment.SIGNED])
    given = np.abs(randaugment.strengths(9, (8, 8)))[np.asarray(ops)]
    np.testing.assert_allclose(np.abs(strength), given)
    moved = signed & (given > 0)
    assert (np.asarray(strength)[~signed] >= 0).all()
    assert 0.45 < (np.asarray(strength)[moved] < 0).mean() < 0.55


def test_a_view_shows_the_operations_before_its_crop_and_replays_from_a_store():
    plain = views.Spec(crop="padded", pad=1, mix="cutmix")
    spec = plain._replace(randaugment=2)
    assert plain.to_json() == {
        k: v for k, v in plain._asdict().items() if k not in ("randaugment", "magnitude")
    }
    assert spec.to_json()["randaugment"] == 2 and spec.to_json()["magnitude"] == 9
    view, other = (views.draw(jax.random.key(1), 3, (H, W), s) for s in (spec, plain))
    assert other.ops is None and set(views.pack(other)) == set(views.STORED)
    for name in views.STORED:  # the other draws are the same
        np.testing.assert_array_equal(getattr(view, name), getattr(other, name))
    packed = views.pack(view)
    assert sum(a.nbytes for a in packed.values()) == 3 * views.stored_bytes(1, 2)
    again = views.unpack(packed)
    jax.tree.map(np.testing.assert_array_equal, again, view)
    scale = randaugment.Pixels((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    mean, std = (np.asarray(a, np.float32) for a in scale)
    x = pictures(3)
    images = jnp.asarray((x / 255 - mean) / std, jnp.float32)
    moved = np.asarray(apply(jnp.asarray(x, jnp.int32), view.ops, view.strength))
    run = jax.jit(views.apply, static_argnums=3)
    wanted = run(jnp.asarray((moved / 255 - mean) / std, jnp.float32), other)
    found = run(images, again, None, scale)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    with pytest.raises(ValueError, match="of pixels"):
        views.apply(images, view)
    with pytest.raises(BadInput, match="randaugment: on, of images of 2 channels"):
        randaugment.validate(2)
