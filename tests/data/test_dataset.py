"""load(): splits, transforms, fingerprints, the cache, and what the user is told."""

import os
import pathlib

import numpy as np
import pytest
from ml_collections import ConfigDict

from jdd.data import DEFAULTS, Transform, load, load_raw
from jdd.data.whitening_fit import FITS
from jdd.errors import BadInput
from tests.data.tiny_sets import refused, tree, write_folder, write_zip
from tests.tiny_classes import write


def test_digits_are_there_without_a_download():
    data = load({"name": "digits"})
    assert data.shape == (8, 8, 1) and data.classes == 10 and data.val is None
    assert data.train.images.shape == (1442, 8, 8, 1) and len(data.test.labels) == 355
    assert data.train.images.dtype == np.float32 and data.train.labels.dtype == np.int32
    assert abs(data.train.images.mean()) < 1e-5 and abs(data.train.images.std() - 1) < 1e-5
    pixels = data.transform.inverse(data.test.images)
    assert pixels.min() > -1e-5 and pixels.max() < 1 + 1e-5
    np.testing.assert_allclose(pixels * 16, np.round(pixels * 16), atol=1e-4)


def test_the_split_of_digits_is_every_fifth_image_of_each_class():
    from sklearn.datasets import load_digits

    bundle, data = load_digits(), load({"name": "digits"})
    mine = data.transform.inverse(data.test.images[data.test.labels == 3])[..., 0]
    np.testing.assert_allclose(mine * 16, bundle.images[bundle.target == 3][4::5], atol=1e-4)


def test_a_config_dict_with_every_key_is_taken():
    assert load(ConfigDict(DEFAULTS)).name == "digits"


def test_loading_twice_gives_the_same_and_settings_change_the_fingerprint():
    plain = load({"name": "digits"})
    again = load({"name": "digits"})
    assert plain.fingerprint == again.fingerprint
    assert np.array_equal(plain.train.images, again.train.images)
    others = [{"zca": True}, {"zca": "kip"}, {"val": 0.1}, {"size": 6}]
    prints = {load({"name": "digits", **other}).fingerprint for other in others}
    assert len(prints | {plain.fingerprint}) == 5
    assert load({"name": "digits", "zca": "kornia"}).fingerprint in prints  # what true means


def test_zca_is_fitted_on_train_and_cached(monkeypatch):
    first = load({"name": "digits", "zca": True})
    assert first.transform.whitens
    rows = first.train.images.reshape(len(first.train.images), -1).astype(np.float64)
    np.testing.assert_allclose(rows.mean(0), 0, atol=1e-5)
    raw = load_raw({"name": "digits"})
    np.testing.assert_allclose(
        first.transform.inverse(first.train.images), raw.splits["train"][0] / 16, atol=1e-4
    )
    monkeypatch.setattr("jdd.data.whitening_fit.fit_zca", None)  # a second fit would fail
    second = load({"name": "digits", "zca": True})
    assert np.array_equal(first.test.images, second.test.images)
    assert first.fingerprint == second.fingerprint


def test_frepo_whitening_normalises_first_and_is_cached(monkeypatch):
    plain, first = load({"name": "digits"}), load({"name": "digits", "zca": "frepo"})
    assert first.transform.kind == "frepo" and first.fingerprint != plain.fingerprint
    for name in ("mean", "std"):
        assert np.array_equal(getattr(first.transform, name), getattr(plain.transform, name))
    pixels = plain.transform.inverse(plain.test.images)
    np.testing.assert_allclose(first.transform.inverse(first.test.images), pixels, atol=1e-4)
    monkeypatch.setitem(FITS, "frepo", None)  # a second fit would fail
    second = load({"name": "digits", "zca": "frepo"})
    assert np.array_equal(second.train.images, first.train.images)


def test_kip_whitening_is_cached_apart(monkeypatch):
    first = load({"name": "digits", "zca": "kip"})
    assert first.transform.kind == "kip"
    assert load({"name": "digits", "zca": True}).transform.kind == "kornia"
    monkeypatch.setattr("jdd.data.whitening_fit.fit_kip_zca", None)  # a second fit would fail
    second = load({"name": "digits", "zca": "kip"})
    assert np.array_equal(first.test.images, second.test.images)
    with pytest.raises(BadInput, match="none, kornia, kip, frepo"):
        load({"name": "digits", "zca": "pca"})


def test_a_validation_split_is_carved_out_on_request():
    whole, data = load({"name": "digits"}), load({"name": "digits", "val": 0.1})
    assert data.val is not None
    assert len(data.val.labels) + len(data.train.labels) == len(whole.train.labels)
    assert np.bincount(data.val.labels).tolist() == [
        round(0.1 * n) for n in np.bincount(whole.train.labels)
    ]
    assert any("validation" in note for note in data.notes)
    # carving is by class and seeded apart from the run, so it is the same every time
    assert np.array_equal(data.val.labels, load({"name": "digits", "val": 0.1}).val.labels)


def test_a_validation_count_is_met_exactly():
    data = load({"name": "digits", "val": 101})
    assert len(data.val.labels) == 101
    counts = np.bincount(data.val.labels)
    assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("value", [-0.1, 1, 2.5, 1442, float("nan"), "many", True])
def test_a_senseless_validation_split_is_refused(value):
    refused(lambda: load({"name": "digits", "val": value}), "config.data.val")


def test_own_set_without_a_test_split_gets_one_and_says_so(tmp_path):
    path = write_folder(tmp_path / "set", tree(splits=("",), count=10))
    data = load({"name": "mine", "path": str(path)})
    assert data.class_names == ("ant", "bee")
    assert data.test.labels.tolist() == [0, 0, 1, 1] and len(data.train.labels) == 16
    assert "no test split found: 20% of each class held out (seed 0), 4 images" in data.notes
    # mean and deviation come from the images left for training
    np.testing.assert_allclose(data.train.images.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(data.train.images.std((0, 1, 2)), 1, atol=1e-5)
    half = load({"name": "mine", "path": str(path), "test": 0.5})
    assert len(half.test.labels) == 10
    for bad in (0, 1.0, -1):
        refused(lambda bad=bad: load({"name": "mine", "path": str(path), "test": bad}),
                "config.data.test")  # fmt: skip


def test_classes_of_one_image_alone_cannot_be_split(tmp_path):
    path = write_folder(tmp_path / "set", tree(splits=("",), count=1))
    whole = lambda: load({"name": "mine", "path": str(path)})  # noqa: E731
    refused(whole, "config.data.test", "every class has one image", "give a test split")


def test_a_single_image_stays_for_training_and_a_note_says_so(tmp_path):
    path = write(tmp_path / "small.npz", (1, 2, 60), test=0)
    data = load({"name": "mine", "path": str(path)})
    assert np.bincount(data.train.labels).tolist() == [1, 1, 48]
    assert np.bincount(data.test.labels).tolist() == [0, 1, 12]
    (note,) = (note for note in data.notes if "no test split" in note)
    assert note.endswith("; of 0 the only image is for training, and the test split has none")
    most = load({"name": "mine", "path": str(path), "test": 0.9, "val": 0.5})
    assert np.bincount(most.train.labels).tolist() == [1, 1, 3]  # one of each is left
    counts = (2, 20)
    two = load({"name": "mine", "path": str(write(tmp_path / "two.npz", counts, test=0))})
    assert not any("the only image" in note for note in two.notes)


def test_a_set_with_its_own_validation_split_keeps_it(tmp_path):
    path = write_folder(tmp_path / "set", tree(splits=("train", "valid", "test")))
    data = load({"name": "mine", "path": str(path)})
    assert data.val is not None and len(data.val.labels) == 10
    refused(lambda: load({"name": "mine", "path": str(path), "val": 0.1}), "config.data.val")


def test_augmentation_follows_the_channels_and_can_be_set(tmp_path):
    colour = write_folder(tmp_path / "colour", tree())
    grey = write_folder(tmp_path / "grey", tree(grey=True))
    assert "flip" in load({"name": "a", "path": str(colour)}).dsa
    assert "flip" not in load({"name": "a", "path": str(grey)}).dsa
    assert load({"name": "a", "path": str(grey), "dsa": "none"}).dsa == "none"
    assert load({"name": "digits"}).dsa == "color_crop_cutout_scale_rotate"


def test_decoded_images_are_cached(tmp_path, monkeypatch):
    config = {"name": "mine", "path": str(write_zip(tmp_path / "set.zip", tree()))}
    first = load(config)
    assert len(list((tmp_path / "cache").glob("decoded-*.npz"))) == 1
    monkeypatch.setattr("jdd.data.sources.folder.read", None)  # decoding again would fail
    second = load(config)
    assert np.array_equal(first.train.images, second.train.images)
    assert first.fingerprint == second.fingerprint and first.notes == second.notes


def test_a_changed_file_is_decoded_again(tmp_path):
    path = write_zip(tmp_path / "set.zip", tree(count=5))
    config = {"name": "mine", "path": str(path)}
    assert len(load(config).train.labels) == 10
    write_zip(path, tree(count=6))
    assert len(load(config).train.labels) == 12
    folder = write_folder(tmp_path / "set", tree(count=5))
    config = {"name": "mine", "path": str(folder)}
    assert len(load(config).train.labels) == 10
    (folder / "train/ant/0.png").unlink()
    assert len(load(config).train.labels) == 9


def test_a_damaged_cache_file_is_made_again(tmp_path):
    config = {"name": "mine", "path": str(write_zip(tmp_path / "set.zip", tree()))}
    first = load(config)
    [cached] = (tmp_path / "cache").glob("decoded-*.npz")
    cached.write_bytes(cached.read_bytes()[:500])
    assert load(config).fingerprint == first.fingerprint
    with np.load(cached) as data:
        assert "train_images" in data.files


def test_an_unwritable_cache_is_told_and_not_fatal(tmp_path):
    (tmp_path / "file").write_text("in the way")
    path = str(write_zip(tmp_path / "set.zip", tree()))
    data = load({"name": "mine", "path": path, "cache_dir": str(tmp_path / "file"), "zca": True})
    assert any("cannot be written" in note for note in data.notes)
    assert len(data.train.labels) == 10


def test_no_temporary_files_stay_behind(tmp_path):
    load({"name": "mine", "path": str(write_zip(tmp_path / "set.zip", tree())), "zca": True})
    names = sorted(p.name for p in pathlib.Path(os.environ["JDD_CACHE"]).iterdir())
    assert [name.split("-")[0] for name in names] == ["decoded", "zca"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar1O", ("cifar10", "known are")),
        ("no_such_thing", ("known are", "config.data.path")),
        ("../etc", ("letter",)),
        ("", ("letter",)),
    ],
)
def test_unknown_datasets(name, words):
    refused(lambda: load({"name": name}), "config.data.name", *words)


@pytest.mark.parametrize("name", ["cifar10_jpeg", "tiny_imagenet"])
def test_a_known_set_of_files_needs_a_path(name):
    refused(lambda: load({"name": name}), "config.data.path", "--config.data.path=")


def test_bad_sources_paths_and_sizes(tmp_path):
    refused(lambda: load({"name": "digits", "source": "foldr"}), "config.data.source", "folder")
    refused(lambda: load({"name": "mnist", "source": "digits"}), "config.data.source", "digits")
    missing = str(tmp_path / "missing.zip")
    refused(lambda: load({"name": "mnist", "path": missing}), "config.data.path", missing)
    for size in (-1, 2.5, 5000, True, "big"):
        refused(lambda size=size: load({"name": "digits", "size": size}), "config.data.size")


def test_a_transform_comes_with_the_data():
    assert isinstance(load({"name": "digits"}).transform, Transform)
