"""The npz source: documented names, and one line for whatever is wrong."""

import pickle

import numpy as np
import pytest

from jdd.data import load
from tests.data.tiny_sets import refused

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 6, 6, 3), np.uint8)
LABELS = np.arange(20) % 2


def save(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return {"name": "mine", "path": str(tmp_path / "set.npz")}


def test_images_and_labels(tmp_path):
    data = load(save(tmp_path, images=IMAGES, labels=LABELS, class_names=["ant", "bee"]))
    assert data.shape == (6, 6, 3) and data.class_names == ("ant", "bee")
    assert len(data.train.labels) == 16 and len(data.test.labels) == 4


@pytest.mark.parametrize("style", ["x_{}|y_{}", "{}_images|{}_labels"])
def test_named_splits(tmp_path, style):
    arrays = {}
    for split, count in (("train", 20), ("val", 6), ("test", 8)):
        x, y = (name.format(split) for name in style.split("|"))
        arrays |= {x: IMAGES[:count], y: LABELS[:count, None]}
    data = load(save(tmp_path, **arrays))
    assert [len(s.labels) for s in (data.train, data.val, data.test)] == [20, 6, 8]
    assert data.notes == ()
    np.testing.assert_allclose(
        data.transform.inverse(data.test.images), IMAGES[:8] / 255, atol=1e-5
    )


def test_grey_floats_and_wide_integers(tmp_path):
    grey = load(save(tmp_path, images=IMAGES[..., 0], labels=LABELS))
    assert grey.shape == (6, 6, 1)
    floats = load(save(tmp_path, images=IMAGES[..., 0] / 255, labels=LABELS.astype(float)))
    np.testing.assert_allclose(floats.train.images, grey.train.images, atol=1e-5)
    wide = load(save(tmp_path, images=IMAGES[..., 0].astype(np.int64), labels=LABELS))
    assert wide.fingerprint == grey.fingerprint


def test_resizing(tmp_path):
    data = load({**save(tmp_path, images=IMAGES, labels=LABELS), "size": 4})
    assert data.shape == (4, 4, 3)
    flat = np.full((20, 6, 6, 1), 0.25)
    data = load({**save(tmp_path, images=flat, labels=LABELS), "size": 9})
    np.testing.assert_allclose(data.transform.inverse(data.train.images), 0.25, atol=1e-6)


def test_a_known_dataset_from_npz(tmp_path):
    images = RNG.integers(0, 256, (40, 28, 28), np.uint8)
    config = {**save(tmp_path, images=images, labels=np.arange(40) % 10), "name": "mnist"}
    data = load(config)
    assert data.transform.mean == np.float32(0.1307) and data.class_names[3] == "3"
    assert any("60000" in note for note in data.notes)  # a part of MNIST is not MNIST
    refused(lambda: load({**config, "name": "cifar10"}), config["path"], "28x28x1", "32x32x3")
    few = {**save(tmp_path, images=images, labels=np.arange(40) % 9), "name": "mnist"}
    refused(lambda: load(few), "labels", "class 9 has no images")


def with_value(value, dtype=np.float32):
    images = (IMAGES / 255).astype(dtype)
    images[3, 2, 1, 0] = value
    return images


@pytest.mark.parametrize(
    ("arrays", "where", "words"),
    [
        ({"images": with_value(np.nan)}, "images", ["1 pixels are NaN"]),
        ({"images": with_value(np.inf)}, "images", ["infinite"]),
        ({"images": with_value(1.5)}, "images", ["1.5", "divide by 255"]),
        ({"images": with_value(-0.5)}, "images", ["-0.5"]),
        ({"images": IMAGES.astype(np.int32) * 2}, "images", ["0 to 255"]),
        ({"images": IMAGES > 9}, "images", ["dtype bool"]),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, "images", ["transpose (0, 2, 3, 1)"]),
        ({"images": IMAGES.reshape(20, -1)}, "images", ["(20, 108)"]),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "images", ["no images"]),
        ({"labels": LABELS[:7]}, "labels", ["(20,)"]),
        ({"labels": LABELS + 0.5}, "labels", ["whole numbers"]),
        ({"labels": np.full(20, np.nan)}, "labels", ["whole numbers"]),
        ({"labels": LABELS.astype(str)}, "labels", ["whole numbers"]),
        ({"labels": LABELS - 1}, "labels", ["from -1 to 0"]),
        ({"labels": LABELS + 1}, "labels", ["class 0 has no images"]),
        ({"labels": LABELS * 10**9}, "labels", ["1000000000"]),
        ({"labels": LABELS * 0}, "labels", ["at least 2 classes"]),
        ({"labels": LABELS * 2}, "labels", ["class 1 has no images"]),
        ({"class_names": ["ant"]}, "labels", ["0 to 0"]),
        ({"class_names": ["ant", "bee", "cat"]}, "labels", ["class 2 (cat) has no images"]),
        ({"class_names": np.arange(2)}, "class_names", ["strings"]),
        ({"x_test": IMAGES, "y_test": LABELS + 1}, "y_test", ["1 to 2", "0 to 1"]),
        ({"x_test": IMAGES}, "set.npz", ["has x_test", "y_test"]),
        ({"x_test": IMAGES[:, :5], "y_test": LABELS}, "set.npz", ["must be alike"]),
    ],
)
def test_what_is_wrong_is_said(tmp_path, arrays, where, words):
    config = save(tmp_path, **{"images": IMAGES, "labels": LABELS, **arrays})
    refused(lambda: load(config), where, *words)


def test_missing_arrays_name_what_is_there(tmp_path):
    refused(lambda: load(save(tmp_path, pics=IMAGES)), "set.npz", "pics", "images", "labels")
    refused(lambda: load(save(tmp_path, images=IMAGES)), "set.npz", "y_train")


def test_pickled_objects_are_never_loaded(tmp_path):
    config = save(tmp_path, images=np.array([IMAGES[0], None], object), labels=LABELS[:2])
    refused(lambda: load(config), "set.npz:images", "pickled")
    # an object array that is not asked for is not touched
    assert load(save(tmp_path, images=IMAGES, labels=LABELS, meta=np.array([None]))).classes == 2


@pytest.mark.parametrize("kind", ["empty", "text", "pickle", "npy", "truncated", "flipped"])
def test_files_that_are_no_npz(tmp_path, kind):
    config = save(tmp_path, images=IMAGES, labels=LABELS)
    whole = (tmp_path / "set.npz").read_bytes()
    contents = {
        "empty": b"",
        "text": b"hello" * 100,
        "pickle": pickle.dumps([1, 2]),
        "npy": b"\x93NUMPY\x01\x00" + whole[50:200],
        "truncated": whole[: len(whole) // 2],
        "flipped": whole[:1000] + bytes([whole[1000] ^ 255]) + whole[1001:],
    }
    (tmp_path / "set.npz").write_bytes(contents[kind])
    refused(lambda: load(config), "set.npz")
