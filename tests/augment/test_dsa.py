"""DSA: each operation against torch or plain numpy, draws, siamese sharing, derivatives."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.augment import dsa
from jdd.errors import BadInput

GOLDEN = Path(__file__).parents[1] / "golden" / "dsa.npz"
ALL = "color_crop_cutout_flip_scale_rotate"
SIZES = [(8, 8), (7, 7), (6, 11), (13, 5)]


def batch(n, h, w, c=3, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng([n, h, w, c]).normal(size=(n, h, w, c)), dtype)


@jax.jit
def resampled(images, sx, sy, angle):
    both = (False, True)
    scaled = {align: dsa.scale(images, sx, sy, align) for align in both}
    # An angle for all images, then one each.
    shared = {align: dsa.rotate(images, angle[:1], align) for align in both}
    return scaled, {align: dsa.rotate(images, angle, align) for align in both}, shared


@pytest.mark.parametrize(("h", "w"), SIZES)
def test_scale_and_rotate_agree_with_torch(h, w):
    with np.load(GOLDEN) as golden, jax.enable_x64(True):
        get = [jnp.asarray(golden[f"{h}x{w}/{key}"]) for key in ("images", "sx", "sy", "angle")]
        scaled, rotated, shared = resampled(*get)
        for align in (False, True):
            expected = golden[f"{h}x{w}/rotate/{align}"]
            np.testing.assert_allclose(scaled[align], golden[f"{h}x{w}/scale/{align}"], atol=1e-12)
            np.testing.assert_allclose(rotated[align], expected, atol=1e-12)
            np.testing.assert_allclose(shared[align][0], expected[0], atol=1e-12)
        # Both conventions are one on square images, where the unit of the grid cancels.
        assert np.allclose(rotated[False], rotated[True], atol=1e-9) == (h == w)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (5, 9), (1, 4)])
def test_crop_is_a_shift_with_zeros(h, w):
    images = batch(5, h, w)
    rows, cols = np.array([0, 1, -1, 2, -2]), np.array([0, -1, 2, 1, -2])
    expected = np.zeros(images.shape, np.float32)
    for n, i, j in np.ndindex(5, h, w):
        a, b = i + rows[n], j + cols[n]
        if 0 <= a < h and 0 <= b < w:
            expected[n, i, j] = images[n, a, b]
    found = dsa.crop(images, jnp.asarray(rows), jnp.asarray(cols))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("h", "w"), [(8, 8), (7, 5), (5, 10), (2, 1)])
def test_cutout_clips_its_hole_at_the_border(h, w):
    sides = [int(size * 0.5 + 0.5) for size in (h, w)]
    last = [size if side % 2 == 0 else size - 1 for size, side in zip((h, w), sides, strict=True)]
    centres = [(a, b) for a in range(last[0] + 1) for b in range(last[1] + 1)]
    images = batch(len(centres), h, w) + 10  # no pixel is zero by itself
    expected = np.array(images)
    for n, centre in enumerate(centres):
        hit = [
            np.clip(o - side // 2 + np.arange(side), 0, size - 1)
            for o, side, size in zip(centre, sides, (h, w), strict=True)
        ]
        expected[n][np.ix_(*hit)] = 0
    rows, cols = (jnp.asarray(c) for c in np.array(centres).T)
    np.testing.assert_array_equal(dsa.cutout(images, rows, cols), expected)


def test_flip():
    images = batch(2, 3, 5)
    found = dsa.flip(images, jnp.asarray([True, False]))
    np.testing.assert_array_equal(found[0], np.asarray(images)[0, :, ::-1])
    np.testing.assert_array_equal(found[1], images[1])


@pytest.mark.parametrize("channels", [1, 3])
def test_color_formulas_in_their_order(channels):
    images = batch(3, 4, 6, channels)
    b, s, k = (np.random.default_rng(i).uniform(size=3).astype(np.float32) for i in range(3))
    found = dsa.color(images, *(jnp.asarray(v) for v in (b, s, k)))
    for n in range(3):
        x = np.asarray(images[n], np.float64) + b[n]
        pixel = x.mean(2, keepdims=True)
        x = (x - pixel) * s[n] + pixel
        x = (x - x.mean()) * k[n] + x.mean()
        np.testing.assert_allclose(found[n], x, atol=1e-5)


def test_draws_have_the_published_ranges(monkeypatch):
    seen = {}

    def spy(name):
        return lambda images, *params: seen.update({name: params[: 3 if name == "color" else 2]})

    for name in dsa.OPS:
        monkeypatch.setattr(dsa, name, spy(name))
    for name in dsa.OPS:
        dsa.apply(0, jax.random.key(1), jnp.zeros((4000, 32, 16, 1)), name)
    third = 1 / 1.2
    ranges = {
        "color": ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5)),
        "crop": ((-4, 4), (-2, 2)),
        "cutout": ((0, 32), (0, 16)),
        "flip": ((0, 1),),
        "scale": ((third, 1.2), (third, 1.2)),
        "rotate": ((-np.pi / 12, np.pi / 12),),
    }
    for name, bounds in ranges.items():
        for values, (low, high) in zip(seen[name], bounds, strict=False):
            values = np.asarray(values, np.float64)
            slack = 0 if name in ("crop", "cutout", "flip") else 0.01 * (high - low)
            assert values.min() >= low - 1e-6 and values.max() <= high + 1e-6
            assert values.min() <= low + slack and values.max() >= high - slack
            np.testing.assert_allclose(values.mean(), (low + high) / 2, atol=0.04 * (high - low))
    first, second = (np.asarray(v, np.float64) for v in seen["scale"])
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05  # sx and sy are independent


@functools.partial(jax.jit, static_argnames=("siamese",))
def each_op(key, images, siamese):
    return [dsa.apply(0, key, images, name, siamese=siamese) for name in dsa.OPS]


def test_siamese_shares_one_draw():
    images, key = jnp.broadcast_to(batch(1, 9, 9), (8, 9, 9, 3)), jax.random.key(4)
    shared, own = (each_op(key, images, siamese) for siamese in (True, False))
    # The draw does not depend on the number of images: real and synthetic batches share it.
    fewer = each_op(key, images[:3], True)
    for many, few, different in zip(shared, fewer, own, strict=True):
        np.testing.assert_array_equal(many, jnp.broadcast_to(many[:1], many.shape))
        np.testing.assert_allclose(few, many[:3], atol=1e-6)
        assert float(jnp.abs(different - different[:1]).max()) > 0


def test_strategies():
    images, key = batch(3, 8, 8), jax.random.key(0)
    for nothing in ("", "none"):
        for mode in "SM":
            assert dsa.dsa(key, images, nothing, mode=mode) is images
    assert dsa.names(ALL) == dsa.OPS
    ops = {int(dsa.draw_op(jax.random.key(i), ALL)) for i in range(60)}
    assert ops == set(range(6))
    assert {int(dsa.draw_op(jax.random.key(i), "flip_crop")) for i in range(20)} == {0, 1}
    # The place in the strategy chooses, whatever the order it is written in.
    np.testing.assert_array_equal(
        dsa.apply(1, key, images, "flip_cutout"), dsa.apply(0, key, images, "cutout_flip")
    )


def test_modes():
    images, key = batch(3, 8, 8), jax.random.key(0)
    op_key, own = jax.random.split(key)
    op = dsa.draw_op(op_key, "flip_cutout")
    np.testing.assert_array_equal(
        dsa.dsa(key, images, "flip_cutout"), dsa.apply(op, own, images, "flip_cutout")
    )
    expected, rest = images, key
    for name in ("flip", "cutout"):
        rest, own = jax.random.split(rest)
        expected = dsa.apply(0, own, expected, name)
    np.testing.assert_array_equal(dsa.dsa(key, images, "flip_cutout", mode="M"), expected)


@pytest.mark.parametrize(
    ("strategy", "mode", "words"),
    [
        ("color_rotat", "S", ("rotat", "rotate", "did you mean")),
        ("crop__flip", "M", ("crop__flip",)),
        ("crop_crop", "S", ("crop", "twice")),
        ("crop", "X", ("'X'", "'S'", "'M'")),
    ],
)
def test_refusals(strategy, mode, words):
    with pytest.raises(BadInput) as error:
        dsa.dsa(jax.random.key(0), batch(1, 4, 4), strategy, mode=mode)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("h", "w", "siamese"), [pytest.param(6, 6, True, marks=pytest.mark.slow), (5, 7, False)]
)
def test_derivatives_to_second_order(h, w, siamese):
    with jax.enable_x64(True):
        images, key = batch(2, h, w, dtype=jnp.float64), jax.random.key(2)
        target = batch(2, h, w, dtype=jnp.float64) ** 2
        along = jnp.sin(images)

        # Not optimised: compiling is all the time that this takes.
        @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
        def derivatives(op, images):
            def loss(x):
                y = dsa.apply(op, key, x, ALL, siamese)
                return (jnp.tanh(y) * target).sum()

            grad = jax.grad(loss)
            forward = jax.jvp(grad, (images,), (along,))[1]
            return (
                loss(images),
                grad(images),
                forward,
                jax.grad(lambda x: (grad(x) * along).sum())(images),
            )

        eps = 1e-6
        for op in range(len(dsa.OPS)):
            _, first, forward, reverse = derivatives(op, images)
            up, down = (derivatives(op, images + s * eps * along)[:2] for s in (1, -1))
            assert first.dtype == jnp.float64
            slope = (up[0] - down[0]) / (2 * eps)
            np.testing.assert_allclose((first * along).sum(), slope, rtol=1e-6, atol=1e-7)
            np.testing.assert_allclose(forward, reverse, atol=1e-12)
            np.testing.assert_allclose(forward, (up[1] - down[1]) / (2 * eps), atol=1e-6)


def test_draws_do_not_depend_on_the_dtype():
    with jax.enable_x64(True):
        images, key = batch(4, 7, 7), jax.random.key(3)
        ones, others = (each_op(key, images.astype(t), False) for t in (jnp.float32, jnp.float64))
        for single, double in zip(ones, others, strict=True):
            assert (single.dtype, double.dtype) == (jnp.float32, jnp.float64)
            np.testing.assert_allclose(single, double, atol=1e-5)


def test_a_shared_operation_stays_a_branch_under_vmap():
    keys, images = jax.random.split(jax.random.key(0), 3), batch(6, 8, 8).reshape(3, 2, 8, 8, 3)

    def many(op, keys, images):
        return jax.vmap(lambda k, x: dsa.apply(op, k, x, ALL))(keys, images)

    assert "cond[" in str(jax.make_jaxpr(many)(jnp.int32(2), keys, images))
    alone, many = each_op, jax.jit(many)
    expected = [alone(k, x, False) for k, x in zip(keys, images, strict=True)]
    for op in range(len(dsa.OPS)):
        found = many(op, keys, images)
        for i in range(3):
            np.testing.assert_allclose(found[i], expected[i][op], atol=1e-5)
