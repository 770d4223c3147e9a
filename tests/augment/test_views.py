"""Views against loops over pixels and torch, what is drawn, replay from a file, derivatives."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import augment
from jdd.augment import crops, views
from jdd.augment.views import Spec, View
from jdd.errors import BadInput


def counted(function, **how):
    """Compile ``function`` and count how often it is."""
    traces = []

    def body(*args):
        traces.append(1)
        return function(*args)

    return jax.jit(body, **how), traces


_draw, _ = counted(views.draw, static_argnums=(1, 2, 3))
_apply, _ = counted(views.apply)


def draw(*args):
    return jax.tree.map(np.asarray, _draw(*args))


def apply(*args):
    return np.asarray(_apply(*args))


def batch(n, h, w, c=3, dtype=np.float32):
    return np.random.default_rng([n, h, w, c]).normal(size=(n, h, w, c)).astype(dtype)


def frozen(n, h, w, strips=1, **fields):
    """The view that changes nothing, but for ``fields``."""
    order = np.tile(np.arange(strips, dtype=np.int32), (n, 1))
    view = View(
        np.tile(np.array([0, 0, h, w], np.int32), (n, 1)),
        np.zeros(n, bool),
        np.zeros((n, 2), np.int32),
        np.arange(n, dtype=np.int32),
        np.zeros((n, 4), np.int32),
        np.ones(n, np.float32),
        order,
        order,
    )
    changed = {k: np.asarray(v, getattr(view, k).dtype) for k, v in fields.items()}
    return view._replace(**changed)


def cut(image, box, border=0.0):
    """The crop alone, pixel by pixel."""
    h, w, c = image.shape
    top, left, height, width = (int(v) for v in box)
    out = np.empty((height, width, c), image.dtype)
    for i, j in np.ndindex(height, width):
        y, x = top + i, left + j
        out[i, j] = image[y, x] if 0 <= y < h and 0 <= x < w else border
    return out


def resize(crop, h, w):
    """Bilinear at half-pixel centres, every place moved into the crop."""
    height, width, c = crop.shape
    out = np.empty((h, w, c))
    for i, j in np.ndindex(h, w):
        y = min(max((i + 0.5) * height / h - 0.5, 0), height - 1)
        x = min(max((j + 0.5) * width / w - 0.5, 0), width - 1)
        a, b = int(y), int(x)
        total = 0.0
        for row, by_row in ((a, 1 - (y - a)), (a + 1, y - a)):
            for col, by_col in ((b, 1 - (x - b)), (b + 1, x - b)):
                if by_row * by_col:
                    total = total + by_row * by_col * crop[row, col]
        out[i, j] = total
    return out


def wanted(images, view, border=0.0):
    """The whole of a view in NumPy, one step after the other."""
    n, h, w, _ = images.shape
    own = []
    for k in range(n):
        image = np.concatenate(
            [np.split(images[k], len(view.cols[k]), 1)[s] for s in view.cols[k]], 1
        )
        image = np.concatenate([np.split(image, len(view.rows[k]), 0)[s] for s in view.rows[k]], 0)
        image = resize(cut(image, view.box[k], border), h, w)
        image = image[:, ::-1] if view.flip[k] else image
        own.append(np.roll(image, tuple(int(s) for s in view.shift[k]), (0, 1)))
    out = []
    for k in range(n):
        share, other = float(view.share[k]), own[int(view.partner[k])]
        image = share * own[k] + (1 - share) * other
        a, b, c, d = (int(v) for v in view.patch[k])
        image[a:b, c:d] = other[a:b, c:d]
        out.append(image)
    return np.stack(out)


BOXES = {
    (8, 8): [(0, 0, 8, 8), (2, 3, 4, 5), (7, 7, 1, 1), (-2, 5, 6, 7), (-3, -3, 14, 16)],
    (6, 9): [(0, 0, 6, 9), (1, 0, 5, 3), (5, 2, 1, 7), (3, -4, 6, 9), (-1, 2, 9, 2)],
}


@pytest.mark.parametrize(
    ("h", "w", "border"), [(8, 8, None), (6, 9, (0.5, -2.0, 1.5))], ids=["zero", "border"]
)
def test_every_field_against_a_loop_over_pixels(h, w, border):
    images = batch(5, h, w, dtype=np.float64)
    view = frozen(
        5,
        h,
        w,
        box=BOXES[h, w],
        flip=[0, 1, 1, 0, 1],
        shift=[(0, 0), (1, -2), (h, 3), (-5, 0), (2, w + 1)],
        partner=[1, 0, 4, 3, 2],
        patch=[(0, 0, 0, 0), (1, 4, 0, w), (0, h, 2, 3), (0, 2, 0, 2), (2, 2, 0, 3)],
        share=[0.25, 1, 1, 0.5, 0.75],
        rows=[(0, 1), (1, 0), (1, 0), (0, 1), (1, 0)] if h == 8 else [(2, 0, 1)] * 5,
        cols=[(0, 1), (0, 1), (1, 0), (1, 0), (1, 0)] if h == 8 else [(1, 2, 0)] * 5,
    )
    with jax.enable_x64(True):
        found = apply(images, view, border)
    np.testing.assert_allclose(found, wanted(images, view, border or 0.0), atol=1e-12)
    if border:
        return
    single = apply(images.astype(np.float32), view)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, found, atol=1e-5)
    half = apply(jnp.asarray(images, jnp.bfloat16), view)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), found, atol=0.05)


def test_resized_crops_agree_with_torch():
    torch = pytest.importorskip("torch")
    images = batch(40, 12, 10)
    view = draw(jax.random.key(1), 40, (12, 10), Spec(crop="resized", flip=0.0))
    found = apply(images, view)
    for image, (top, left, height, width), mine in zip(images, view.box, found, strict=True):
        crop = torch.from_numpy(image[top : top + height, left : left + width].transpose(2, 0, 1))
        args = {"size": (12, 10), "mode": "bilinear", "align_corners": False}
        theirs = torch.nn.functional.interpolate(crop[None], **args)[0]
        np.testing.assert_allclose(mine, theirs.numpy().transpose(1, 2, 0), atol=2e-6)


@pytest.mark.parametrize("size", [8, 49])
def test_whole_boxes_and_padded_crops_change_no_bit(size):
    # 49 * (1 / 49) is not 1: places are whole numbers and not rounded ones.
    images = batch(4, size, size, 1)
    for strips in (1, size):  # every row of its own is no change either
        np.testing.assert_array_equal(apply(images, frozen(4, size, size, strips)), images)
    spec = Spec(crop="padded", pad=3, flip=0.5, roll=2)
    view = draw(jax.random.key(size), 4, (size, size), spec)
    padded = np.pad(images, ((0, 0), (3, 3), (3, 3), (0, 0)))
    found = apply(images, view)
    for k, (top, left, *_) in enumerate(view.box + 3):
        expected = padded[k, top : top + size, left : left + size]
        expected = expected[:, ::-1] if view.flip[k] else expected
        expected = np.roll(expected, view.shift[k], (0, 1))
        np.testing.assert_array_equal(found[k], expected)
    filled = apply(images, view, (9.0,))
    np.testing.assert_array_equal(filled, np.where(found == 0, np.float32(9), found))


# What is drawn.


@pytest.mark.parametrize(("h", "w"), [(32, 32), (24, 40)])
def test_resized_boxes_have_area_and_ratio_within_bounds(h, w):
    spec = Spec(crop="resized", scale=(0.3, 0.9), ratio=(0.5, 1.5))
    top, left, height, width = draw(jax.random.key(0), 4000, (h, w), spec).box.T
    assert min(top.min(), left.min()) == 0 and min(height.min(), width.min()) > 0
    assert (top + height).max() <= h and (left + width).max() <= w
    # Sides are rounded, by at most half a pixel each.
    slack = (height + width + 1) / 2
    area = height * width
    assert (area + slack >= 0.3 * h * w).all() and (area - slack <= 0.9 * h * w).all()
    assert ((width + 0.5) / (height - 0.5) >= 0.5).all()
    assert ((width - 0.5) / (height + 0.5) <= 1.5).all()
    assert area.min() < 0.33 * h * w and area.max() > 0.85 * h * w
    assert 0.05 < np.mean(top == 0) < 0.6  # places spread over what fits
    free = h - height > 4
    share = top[free] / (h - height)[free]
    assert abs(share.mean() - 0.5) < 0.02 and share.min() == 0 and share.max() == 1


def test_small_areas_are_uniform_and_ratios_log_uniform():
    # Where every first try fits, what is drawn has the distribution itself.
    spec = Spec(crop="resized", scale=(0.1, 0.5))
    _, _, height, width = draw(jax.random.key(1), 4000, (400, 400), spec).box.T
    area = height * width / 400**2
    np.testing.assert_allclose(np.quantile(area, [0.25, 0.5, 0.75]), [0.2, 0.3, 0.4], atol=0.015)
    ratio = np.log(width / height) / np.log(4 / 3)
    np.testing.assert_allclose(np.quantile(ratio, [0.25, 0.5, 0.75]), [-0.5, 0, 0.5], atol=0.06)


@pytest.mark.parametrize(
    ("shape", "box"),
    [
        ((30, 10), (8, 0, 13, 10)),  # tall: all its width, ratio 3/4
        ((10, 30), (0, 8, 10, 13)),  # broad: all its height, ratio 4/3
    ],
)
def test_the_centre_is_cut_where_nothing_fits(shape, box):
    spec = Spec(crop="resized", scale=(1.0, 1.0))
    assert (draw(jax.random.key(0), 50, shape, spec).box == box).all()


def test_the_first_try_that_fits_counts():
    # sqrt(a r) of 20 x 30 pixels: 49 x 12 and 12 x 49 do not fit, 15 x 20 does, as does 24 x 12.
    tries = [(0.98, 1.0), (0.98, 0.0), (0.5, np.log(20 / 15 * 4) / np.log(16)), (0.5, 0.5)]
    u = np.full((2, 22), 0.999, np.float32)
    u[:, 2:12], u[:, 12:] = 1.0, 1.0
    u[0, 2:6], u[0, 12:16] = np.array(tries).T
    boxes = jax.jit(lambda u: views.resized_boxes(u, 20, 30, (0.0, 1.0), (0.25, 4.0)))(u)
    np.testing.assert_array_equal(boxes, [(5, 10, 15, 20), (0, 0, 20, 30)])


def test_offsets_flips_and_rolls_are_uniform():
    spec = Spec(crop="padded", pad=2, flip=0.25, roll=3)
    view = draw(jax.random.key(3), 6000, (8, 10, 3), spec)
    assert (view.box[:, 2:] == (8, 10)).all()
    for axis in range(2):
        places, counts = np.unique(view.box[:, axis], return_counts=True)
        assert list(places) == [-2, -1, 0, 1, 2]
        np.testing.assert_allclose(counts / 6000, 0.2, atol=0.025)
        steps, counts = np.unique(view.shift[:, axis], return_counts=True)
        assert list(steps) == [0, 1, 2, 3]
        np.testing.assert_allclose(counts / 6000, 0.25, atol=0.025)
    assert abs(np.mean(view.flip) - 0.25) < 0.02
    both = draw(jax.random.key(3), 500, (8, 10), Spec(roll=2, signed=True)).shift
    assert set(np.unique(both)) == {-2, -1, 0, 1, 2}
    nothing = draw(jax.random.key(3), 50, (8, 10), Spec(flip=0.0))
    jax.tree.map(np.testing.assert_array_equal, nothing, frozen(50, 8, 10))


def test_shared_draws_are_one_for_the_batch_and_others_are_not():
    spec = Spec(crop="resized", roll=8, shared=True)
    one, many = (
        draw(jax.random.key(0), 64, (32, 32), s) for s in (spec, spec._replace(shared=False))
    )
    for name in ("box", "flip", "shift"):
        assert len(np.unique(getattr(one, name), axis=0)) == 1
        assert len(np.unique(getattr(many, name), axis=0)) > 1
    seen = [draw(jax.random.key(i), 64, (32, 32), spec).box[0] for i in range(8)]
    assert len(np.unique(seen, axis=0)) == 8


@functools.partial(jax.jit, static_argnums=1)
def mixes(keys, spec):
    return jax.vmap(lambda key: views.draw(key, 4, (16, 24), spec))(keys)


def test_cutmix_has_one_box_and_one_permutation_a_batch():
    drawn = mixes(jax.random.split(jax.random.key(0), 3000), Spec(mix="cutmix"))
    patch, partner = np.asarray(drawn.patch), np.asarray(drawn.partner)
    assert (patch == patch[:, :1]).all() and (np.sort(partner, 1) == np.arange(4)).all()
    assert (np.asarray(drawn.share) == 1).all()
    lo, hi = patch[:, 0, ::2], patch[:, 0, 1::2]
    assert (lo >= 0).all() and (lo <= hi).all() and (hi <= (16, 24)).all()
    np.testing.assert_allclose(np.mean(partner == np.arange(4)), 0.25, atol=0.03)
    whole = (lo > 0).all(1) & (hi < (16, 24)).all(1)  # not cut by the border
    assert ((hi - lo)[whole] % 2 == 0).all() and whole.sum() > 100


@pytest.mark.parametrize(("h", "w"), [(16, 24), (7, 7)])
def test_cutmix_box_follows_lambda(h, w):
    lam = jnp.linspace(0, 1, 400)
    centres = jnp.asarray(np.random.default_rng(1).uniform(size=(400, 2)), jnp.float32)
    patch = jax.jit(jax.vmap(lambda v, u: views.cutmix_patch(v, u, h, w)))(lam, centres)
    for (a, b, c, d), value in zip(np.asarray(patch), np.asarray(lam), strict=True):
        half = [int(s * np.sqrt(np.float32(1) - value)) // 2 for s in (h, w)]
        for lo, hi, side, size in ((a, b, half[0], h), (c, d, half[1], w)):
            allowed = [(max(m - side, 0), min(m + side, size)) for m in range(size)]
            assert (lo, hi) in allowed
    assert len(np.unique(np.asarray(patch)[:200, 0])) > 3


def test_mixup_has_one_share_of_the_beta_distribution():
    drawn = mixes(jax.random.split(jax.random.key(2), 2000), Spec(mix="mixup", alpha=0.8))
    share = np.asarray(drawn.share)
    assert (share == share[:, :1]).all() and not np.asarray(drawn.patch).any()
    np.testing.assert_allclose(share[:, 0].mean(), 0.5, atol=0.02)
    np.testing.assert_allclose(share[:, 0].var(), 0.25 / (2 * 0.8 + 1), atol=0.006)


def test_own_share_counts_pixels():
    view = draw(jax.random.key(5), 40, (9, 13), Spec(mix="cutmix"))
    marks = np.tile(np.arange(40, dtype=np.float32)[:, None, None, None], (1, 9, 13, 1))
    own = apply(marks, view) == marks
    assert 0 < own.mean() < 1
    np.testing.assert_allclose(views.own_share(view, (9, 13)), own.mean((1, 2, 3)), atol=1e-7)
    view = draw(jax.random.key(6), 40, (9, 13), Spec(mix="mixup"))
    expected = np.where(view.partner == np.arange(40), 1, view.share)
    np.testing.assert_array_equal(views.own_share(view, (9, 13)), expected.astype(np.float32))


@pytest.mark.parametrize("own", [False, True])
def test_strips_are_permuted(own):
    view = draw(jax.random.key(7), 600, (4, 6), Spec(flip=0.0, shuffle=2, own_shuffle=own))
    assert (np.sort(view.rows, 1) == np.arange(2)).all()
    drawn = np.concatenate([view.rows, view.cols], 1)
    kinds, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(kinds) == (4 if own else 1)
    if own:
        np.testing.assert_allclose(counts / 600, 0.25, atol=0.06)
    if own:
        images, view = batch(5, 4, 6, 1), jax.tree.map(lambda a: a[:5], view)
        view = view._replace(partner=np.arange(5, dtype=np.int32))
        np.testing.assert_array_equal(apply(images, view), wanted(images, view))


# Replay, derivatives, compilation.

EVERYTHING = Spec(crop="resized", roll=3, signed=True, mix="cutmix", shuffle=2, own_shuffle=True)


def test_a_stored_view_replays_to_the_bit(tmp_path):
    images = batch(6, 8, 8)
    run, traces = counted(views.apply)
    for spec in (EVERYTHING, EVERYTHING._replace(mix="mixup")):
        view = draw(jax.random.key(8), 6, (8, 8), spec)
        first = np.asarray(run(images, view))
        np.savez(tmp_path / "view.npz", labels=np.zeros(6), **views.pack(view))
        with np.load(tmp_path / "view.npz") as stored:
            again = views.unpack(stored)
        assert jax.tree.map(lambda a: (a.shape, a.dtype), again) == jax.tree.map(
            lambda a: (a.shape, a.dtype), view
        )
        jax.tree.map(np.testing.assert_array_equal, again, view)
        assert np.asarray(run(images, again)).tobytes() == first.tobytes()
    assert len(traces) == 1
    size = sum(a.nbytes for a in views.pack(view).values()) / 6
    assert size == 8 + 1 + 4 + 4 + 8 + 4 + 2 * 4  # bytes an image


def test_what_cannot_be_stored_is_refused():
    view = frozen(2, 8, 8)
    with pytest.raises(BadInput, match=r"view.box: 40008; values that int16 holds"):
        views.pack(view._replace(box=view.box + 40000))
    packed = views.pack(view)
    with pytest.raises(BadInput, match="stored view: no share"):
        views.unpack({k: v for k, v in packed.items() if k != "share"})
    with pytest.raises(BadInput, match="stored view, share: float64; float32"):
        views.unpack(packed | {"share": packed["share"].astype(np.float64)})


@pytest.mark.parametrize("mix", ["cutmix", "mixup"])
def test_gradients_agree_with_finite_differences(mix):
    view = draw(jax.random.key(9), 6, (8, 8), EVERYTHING._replace(mix=mix))
    with jax.enable_x64(True):
        images, along, target = (
            jnp.asarray(np.random.default_rng(i).normal(size=(6, 8, 8, 2))) for i in range(3)
        )

        @jax.jit
        def both(x):
            return jax.value_and_grad(lambda x: (jnp.tanh(views.apply(x, view)) * target).sum())(x)

        _, grad = both(images)
        up, down = (both(images + s * 1e-6 * along)[0] for s in (1, -1))
        assert grad.dtype == jnp.float64
        np.testing.assert_allclose((grad * along).sum(), (up - down) / 2e-6, rtol=1e-6)


def test_a_curriculum_is_drawn_by_one_program():
    program, traces = counted(views.draw, static_argnums=(1, 2, 3))
    spec, key = Spec(crop="resized"), jax.random.key(10)
    areas = []
    for low in (1.0, 0.7, 0.4, 0.08):
        box = np.asarray(program(key, 500, (32, 32), spec, jnp.float32(low)).box)
        areas.append((box[:, 2] * box[:, 3] / 32**2).min())
        assert areas[-1] > low - 0.05
    assert len(traces) == 1 and areas[0] > 0.9 and areas[3] < 0.12
    fixed = program(key, 500, (32, 32), spec)
    np.testing.assert_array_equal(fixed.box, box)  # 0.08 is the spec's own
    for name in ("flip", "shift"):  # what else is drawn does not follow from the crop
        plain = draw(key, 500, (32, 32), Spec())
        np.testing.assert_array_equal(getattr(fixed, name), getattr(plain, name))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (Spec(crop="resize"), "crop 'resize'"),
        (Spec(mix="cutmx"), "mix 'cutmx'"),
        (Spec(scale=(0.5, 0.2)), "scale"),
        (Spec(scale=(0.0, 1.0)), "scale"),
        (Spec(ratio=(2.0, 1.0)), "ratio"),
        (Spec(alpha=0.0), "alpha"),
        (Spec(pad=-1), "pad -1"),
        (Spec(flip=1.5), "flip 1.5"),
        (Spec(shuffle=3), "shuffle 3 of 8 x 9"),
    ],
)
def test_refusals(spec, words):
    with pytest.raises(BadInput, match=words):
        views.draw(jax.random.key(0), 2, (8, 9), spec)


def test_whole_numbers_are_refused():
    with pytest.raises(BadInput, match="uint8"):
        views.apply(np.zeros((2, 8, 8, 1), np.uint8), frozen(2, 8, 8))


# As an augmentation of trained nets.


def test_strategies_apply_all_their_operations_to_each_image():
    assert augment.kind("views") is crops
    key, images = jax.random.key(0), np.tile(batch(1, 16, 16), (60, 1, 1, 1))
    run = jax.jit(crops.apply, static_argnums=(3, 4))
    assert crops.apply(0, key, images, "none") is images
    assert int(crops.draw_op(key, "pad_flip")) == 0
    image = images[0]
    padded = np.pad(image, ((2, 2), (2, 2), (0, 0)))  # an eighth of 16
    places = [padded[i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
    known = {a.tobytes(): mirrored for p in places for mirrored, a in ((0, p), (1, p[:, ::-1]))}
    found = [known[x.tobytes()] for x in np.asarray(run(0, key, images, "pad_flip"))]
    assert 0.2 < np.mean(found) < 0.8
    flipped = np.asarray(run(0, key, images, "flip"))
    turned = (flipped == image[:, ::-1]).all((1, 2, 3))
    assert ((flipped == image).all((1, 2, 3)) ^ turned).all() and 0.2 < turned.mean() < 0.8
    assert crops.spec_of("rrc_flip", 32) == Spec(crop="resized", flip=0.5)
    assert crops.spec_of("rrc", 64, siamese=True) == Spec("resized", pad=8, flip=0.0, shared=True)
    one = np.asarray(run(0, key, images, "rrc_flip", True))
    assert (one == one[:1]).all() and not (one[0] == image).all()


@pytest.mark.parametrize(
    ("strategy", "words"), [("pad_rrc", "two crops"), ("crop", "unknown"), ("flip_flip", "twice")]
)
def test_strategies_that_are_refused(strategy, words):
    with pytest.raises(BadInput, match=words):
        crops.names(strategy)
