"""Real crops by how real a teacher finds them: which are taken, and images that start as them."""

from __future__ import annotations

import hashlib
import json

import jax
import numpy as np
import pytest

from jdd import config as config_lib
from jdd import methods, rng
from jdd.augment import views
from jdd.errors import BadInput
from jdd.pretrained import patch_selection
from jdd.product.distilled_set import DistilledSet
from tests import runs

KEYS = {
    "method": "sre2l", "squeeze.nets": "ConvNetBN", "squeeze.width": 4, "squeeze.epochs": 1,
    "net.name": "ConvNetBN", "nets": "ConvNetBN", "ipc": 4, "image_batch": 6, "batches_at_once": 1,
    "pix_init": "patch", "steps": 1, "lr_img": 0.0, "quantise": "none", "eval.curve": 0,
}  # fmt: skip


@pytest.fixture
def trained(tiny, tmp_path, monkeypatch):
    """Return a maker of (keys, work) whose teacher lies on disk; how good it is says nothing."""
    monkeypatch.setattr("jdd.stages.squeeze.right", lambda *a: 0.9)
    monkeypatch.setattr(patch_selection, "BATCH", 64)  # 20 images by 5 crops: 64 and 36

    def make(weights=3, **more):
        wanted = tiny | KEYS | {"squeeze.batch": 64} | more
        schema = config_lib.schema(wanted["method"])
        keys = {name: value for name, value in wanted.items() if name in schema}
        context = runs.context(keys, tmp_path / "run")
        for teacher in context.teachers:
            if not teacher.trained:
                fresh = teacher.net.init(rng.key(weights, teacher.net.name))
                teacher.store.create()
                teacher.store.write(0, 1, jax.tree.map(lambda x: np.asarray(x)[None], fresh))
        return keys, context

    return make


class Lazy:
    """An array of which rows alone can be read."""

    def __init__(self, array):
        self.array, self.shape = array, array.shape

    def __getitem__(self, rows):
        assert isinstance(rows, np.ndarray) and rows.dtype.kind == "i" and rows.ndim == 1
        return self.array[rows]


def lazy(data):
    return data._replace(train=data.train._replace(images=Lazy(data.train.images)))


def enlarged(image, box):
    """Return what a box shows, bilinearly, half-pixel centres, the edge repeated."""
    top, left, height, width = box
    part = image[top : top + height, left : left + width].astype(np.float64)
    for axis, size in ((0, height), (1, width)):
        at = ((np.arange(8) + 0.5) * size / 8 - 0.5).clip(0, size - 1)
        lo = np.floor(at).astype(int)
        hi, share = np.minimum(lo + 1, size - 1), at - lo
        share = share.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        part = np.take(part, lo, axis) * (1 - share) + np.take(part, hi, axis) * share
    return part


@jax.jit
def squares(key):
    """Return the boxes of 64 square crops of an area of 8 to 100 %."""
    spec = views.Spec(crop="resized", scale=(0.08, 1.0), ratio=(1.0, 1.0), flip=0.0)
    return views.draw(key, 64, (8, 8), spec).box


@pytest.mark.parametrize("n, k", [(9, 4), (10, 3), (6, 6), (7, 1)])
def test_the_middle_of_the_order_leaves_as_many_on_either_side(n, k):
    scores = np.random.default_rng(n).integers(0, 5, (n, 3)).astype(np.float32)  # with ties
    image, crop = patch_selection.taken(scores, k, "middle")
    best = [min(own) for own in scores.tolist()]
    order = sorted(range(n), key=lambda i: (best[i], i))
    left = (n - k) // 2
    assert image.tolist() == order[left : left + k] and 0 <= n - k - 2 * left <= 1
    assert [scores[i].tolist().index(best[i]) for i in image] == crop.tolist()
    image, _ = patch_selection.taken(scores, k, "best")
    assert image.tolist() == order[:k]


def test_medium_crops_are_in_the_middle_of_what_the_teacher_sees(trained):
    _, context = trained()
    teacher, data = context.teachers[0], context.data
    found = patch_selection.medium(teacher, lazy(data), 1, 4)
    assert found.rows.shape == (12,) and found.box.shape == (12, 4)
    judge = jax.jit(lambda x: teacher.net.apply(teacher.variables(), x, train=False).logits)
    for label in range(3):
        rows = np.flatnonzero(data.train.labels == label)
        drawn = np.repeat(rng.host(1, "rded/images", label).permutation(rows), 5)
        keys = [jax.random.fold_in(rng.key(1, "rded/crops", label), i) for i in (0, 1)]
        boxes = np.concatenate([squares(key) for key in keys])[:100]
        assert (boxes[:, 2] == boxes[:, 3]).all() and len(np.unique(boxes, axis=0)) > 20
        pairs = zip(drawn, boxes, strict=True)
        crops = np.stack([enlarged(data.train.images[r], box) for r, box in pairs])
        logits = np.asarray(judge(crops.astype(np.float32)), np.float64)
        losses = (np.log(np.exp(logits).sum(1)) - logits[:, label]).reshape(20, 5)
        middle = np.argsort(losses.min(1))[8:12]  # of 20, 8 easier and 8 harder
        own = slice(4 * label, 4 * label + 4)
        np.testing.assert_array_equal(found.rows[own], drawn[::5][middle])
        best = losses[middle].argmin(1)
        np.testing.assert_array_equal(found.box[own], boxes.reshape(20, 5, 4)[middle, best])
        shown = patch_selection.cut(data.train.images[found.rows[own]], found.box[own])
        np.testing.assert_allclose(shown, crops[5 * middle + best], atol=1e-5)


@pytest.mark.parametrize("factor, ipc", [(1, 4), (2, 2), (4, 1)])
def test_rded_chooses_crops_and_puts_them_together_as_published(trained, factor, ipc):
    _, context = trained(method="rded", steps=0, factor=factor, ipc=ipc, candidates=18)
    teacher, data, side, each = context.teachers[0], context.data, 8 // factor, ipc * factor**2
    found = patch_selection.select(
        teacher, data, 2, each, patch_selection.Rule(18, 5, 0.08, factor)
    )
    shown = np.asarray(methods.make(context.config, context.problem).init(2).variables["images"])
    judge = jax.jit(lambda x: teacher.net.apply(teacher.variables(), x, train=False).logits)
    elsewhere = 0
    for label in range(3):
        rows = np.flatnonzero(data.train.labels == label)
        drawn = rng.host(2, "rded/images", label).permutation(rows)[:18]
        keys = [jax.random.fold_in(rng.key(2, "rded/crops", label), i) for i in (0, 1)]
        boxes = np.concatenate([squares(key) for key in keys])[:90]
        pairs = zip(np.repeat(drawn, 5), boxes, strict=True)
        crops = np.stack([enlarged(data.train.images[r], box) for r, box in pairs])
        cells = crops.reshape(90, side, factor, side, factor, 3).mean((2, 4))

        def choice(top, cells=cells, label=label):
            seen = np.zeros((90, 8, 8, 3), np.float32)
            seen[:, top : top + side, top : top + side] = cells
            logits = np.asarray(judge(seen), np.float64)
            losses = (np.log(np.exp(logits).sum(1)) - logits[:, label]).reshape(18, 5)
            image = np.argsort(losses.min(1))[:each]
            return image, losses[image].argmin(1)

        image, crop = choice((8 - side) // 2)  # zeros on all four sides
        own = slice(each * label, each * (label + 1))
        np.testing.assert_array_equal(found.rows[own], drawn[image])
        np.testing.assert_array_equal(found.box[own], boxes.reshape(18, 5, 4)[image, crop])
        for k, cell in enumerate(cells[5 * image + crop]):  # first cells first, the best in them
            top, left = side * (k // ipc // factor), side * (k // ipc % factor)
            part = shown[ipc * label + k % ipc, top : top + side, left : left + side]
            np.testing.assert_allclose(part, cell, atol=1e-5)
        elsewhere += sum(map(np.any, np.subtract((image, crop), choice(0)).T))
    assert (elsewhere == 0) == (factor == 1)  # zeros right and below alone choose others
    if factor == 1:  # what the published settings have chosen ever since
        raw = b"".join(np.ascontiguousarray(a, "<i4").tobytes() for a in found)
        assert hashlib.sha256(raw).hexdigest()[:16] == "fc62949d8893cb3c"


def test_an_odd_rest_of_zeros_is_below_and_on_the_right():
    cells = np.arange(1, 13, dtype=np.float32).reshape(2, 3, 2, 1)
    wanted = np.zeros((2, 8, 7, 1), np.float32)
    wanted[:, 2:5, 2:4] = cells
    np.testing.assert_array_equal(patch_selection.padded(cells, (8, 7)), wanted)


@pytest.mark.parametrize("side, factor", [(9, 1), (64, 1), (65, 2), (66, 2)])
def test_the_factor_of_a_dataset_of_ones_own_follows_from_its_images(tmp_path, side, factor):
    given = {"method": "rded", "data.name": "own", "data.path": str(tmp_path), "ipc": 1}
    loaded = config_lib.load("rded", given)
    names = ("factor", "relabel.shuffle", "relabel.min_scale")
    first = config_lib.resolve(loaded.config)[0]
    assert [config_lib.flat(first)[name] for name in names] == ["auto"] * 3  # until it is loaded
    values = config_lib.flat(config_lib.resolve(first, shape=(side, side, 3))[0])
    assert [values[name] for name in names] == [factor, factor, 1 / factor]


@pytest.mark.parametrize("factor", [3, 16])
def test_cells_that_do_not_fill_an_image_are_refused(trained, factor):
    with pytest.raises(BadInput) as caught:
        trained(method="rded", steps=0, factor=factor, **{"relabel.shuffle": 1})
    error = caught.value
    assert error.where == "config.factor" and "8 x 8 pixels" in error.found
    assert error.allowed.endswith(": 1, 2, 4, 8")


def test_a_choice_is_made_once_and_again_where_it_is_another(trained, monkeypatch):
    _, context = trained()
    teacher, data, calls = context.teachers[0], context.data, []
    plain = patch_selection.select
    monkeypatch.setattr(patch_selection, "select", lambda *a: calls.append(1) or plain(*a))
    first, again = (patch_selection.medium(teacher, data, 0, 4) for _ in "ab")
    jax.tree.map(np.testing.assert_array_equal, first, again)
    path = teacher.store.directory / "crops-i4-s0.npz"
    assert len(calls) == 1 and path.exists()
    with np.load(path) as file:
        told = json.loads(str(file["settings"]))
    assert told["data"] == data.fingerprint and told["weights"] == teacher.digest() != ""
    whole = path.read_bytes()
    other = teacher._replace(settings=teacher.settings | {"data": "other"})
    for count, change in enumerate(
        (
            lambda: patch_selection.medium(other, data, 0, 4),  # the file is the other's now
            lambda: patch_selection.medium(teacher, data, 0, 4),
            lambda: patch_selection.medium(teacher, data, 1, 4),
            lambda: patch_selection.medium(teacher, data, 0, 3),
            lambda: path.write_bytes(whole[:-40]) and patch_selection.medium(teacher, data, 0, 4),
        ),
        2,
    ):
        change()
        assert len(calls) == count
    assert path.read_bytes() == whole
    few = plain(teacher, data, 0, 25, patch_selection.MEDIUM)  # more than the 20 images of a class
    assert (data.train.labels[few.rows] == np.repeat(np.arange(3), 25)).all()


def test_images_start_as_the_crops_and_a_resumed_run_reads_them(trained, tmp_path, monkeypatch):
    keys, context = trained(ipc=2)
    runs.run(keys, tmp_path / "run", "squeeze")
    runs.run(keys, tmp_path / "run", "recover")
    dset = DistilledSet.load(tmp_path / "run/distilled.npz")
    found = patch_selection.medium(context.teachers[0], context.data, 0, 2)
    wanted = patch_selection.cut(
        context.data.train.images[found.rows], found.box
    )  # a rate of 0 leaves them
    np.testing.assert_allclose(dset.images, wanted, atol=1e-5)
    assert len(np.unique(found.rows)) == 6 and (found.box[:, 2] < 8).any()

    def never(*a):
        raise AssertionError("chosen again")

    monkeypatch.setattr(patch_selection, "select", never)
    whole = (tmp_path / "run/distilled.npz").read_bytes()
    (tmp_path / "run/checkpoints/recover-parts/1.npy").unlink()
    (tmp_path / "run/distilled.npz").unlink()
    runs.run(keys, tmp_path / "run", "recover")
    assert (tmp_path / "run/distilled.npz").read_bytes() == whole


@pytest.mark.parametrize("method", ["cda", "gvbsm"])
def test_of_an_untrained_teacher_images_are_whole(trained, method):
    _, context = trained(method=method)
    images = methods.make(context.config, context.blank).init(0).variables["images"]
    assert images.shape == (12, 8, 8, 3)
    rows = [rng.host(0, "rded/images", c).permutation(np.arange(c, 60, 3))[:4] for c in range(3)]
    pool = context.data.train.images[np.concatenate(rows)]
    apart = np.abs(np.asarray(images)[:, None] - pool[None]).max((2, 3, 4))
    assert sorted(apart.argmin(1)) == list(range(12)) and apart.min(1).max() < 1e-6
