"""Splits and classes are decided by the structure of a folder tree, and guesses are stated."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from jdd.config import schema
from jdd.data import load, load_raw
from jdd.data.sources import layout
from jdd.errors import BadInput
from tests.data.tiny_sets import encode, pixels, refused, tree, write_folder, write_tar, write_zip


def read(tmp_path, files, **options):
    """Read the files from an archive, and from a folder, which lists its folders too."""
    path = write_zip(tmp_path / "set.zip", files)
    folder = write_folder(Path(tempfile.mkdtemp(dir=tmp_path)), files)
    asked = {"name": "mine", **options}
    try:
        found = load_raw(asked | {"path": str(path)})
    except BadInput:
        with pytest.raises(BadInput):
            load_raw(asked | {"path": str(folder)})
        raise
    again = load_raw(asked | {"path": str(folder)})
    assert found.class_names == again.class_names and found.notes == again.notes
    for split, (images, labels) in found.splits.items():
        assert np.array_equal(images, again.splits[split][0])
        assert np.array_equal(labels, again.splits[split][1])
    return found


def counts(data):
    return {split: len(labels) for split, (_, labels) in data.splits.items()}


def renamed(files, *pairs):
    out = {}
    for name, data in files.items():
        for old, new in pairs:
            name = name.replace(old, new)
        out[name] = data
    return out


COMMON = {
    "training_set": (("train/", "training_set/"), ("test/", "test_set/")),
    "seg_train": (("train/", "seg_train/seg_train/"), ("test/", "seg_test/seg_test/")),
    "train_images": (("train/", "train_images/"), ("test/", "test_images/")),
    "Train": (("train/", "Train/"), ("test/", "Testing/")),
    "train/images": (("train/", "train/images/"), ("test/", "test/images/")),
    "trainset": (("train/", "trainset/"), ("test/", "testset/")),
    "cars_train": (("train/", "cars_train/"), ("test/", "cars_test/")),
    "wrapped": (("train/", "a/b/train/"), ("test/", "a/b/test/")),
}


@pytest.mark.parametrize("form", COMMON)
def test_common_names_of_splits(tmp_path, form):
    data = read(tmp_path, renamed(tree(), *COMMON[form]))
    assert data.class_names == ("ant", "bee") and data.notes == ()
    assert {split: len(labels) for split, (_, labels) in data.splits.items()} == {
        "train": 10,
        "test": 10,
    }
    assert np.array_equal(data.splits["train"][0], np.stack([pixels(i) for i in range(10)]))


def test_a_flat_split_next_to_them_is_left_out(tmp_path):
    """The layout of Intel's scenes: seg_pred/seg_pred holds pictures without classes."""
    files = renamed(tree(), *COMMON["seg_train"])
    files |= {f"seg_pred/seg_pred/{i}.png": encode(pixels(i)) for i in range(3)}
    data = read(tmp_path, files)
    assert len(data.splits["train"][1]) == 10 and len(data.splits["test"][1]) == 10
    assert data.notes == (
        "folders next to the splits left out: seg_pred",
        "3 stray files (3 .png) ignored, such as seg_pred/seg_pred/0.png",
    )


def test_a_class_may_be_called_train(tmp_path):
    data = read(tmp_path, tree(splits=("",), classes=("airplane", "car", "train")))
    assert data.class_names == ("airplane", "car", "train")
    assert any("train taken for a class, next to airplane, car" in note for note in data.notes)
    inner = tree(splits=("",), classes=("bus/front", "bus/side", "train/front", "train/side"))
    refused(lambda: read(tmp_path, inner), "set.zip", "bus lie next", "data.layout=splits")
    assert read(tmp_path, inner, layout="classes").class_names == ("bus", "train")
    assert read(tmp_path, inner, layout="splits").class_names == ("front", "side")
    deep = tree(splits=("",), classes=("bus/city", "bus/coach", "train/steam", "train/tram"))
    refused(lambda: read(tmp_path, deep), "set.zip", "data.layout=splits")
    assert read(tmp_path, deep, layout="classes").class_names == ("bus", "train")
    both = tree(classes=("bus", "train"))
    assert read(tmp_path, both).class_names == ("bus", "train")
    assert read(tmp_path, both).notes == ()
    tube = tree(splits=("",), classes=("test_tube", "beaker"))
    assert read(tmp_path, tube).class_names == ("beaker", "test_tube")


def test_class_first_layouts_have_their_splits(tmp_path):
    files = {}
    for i, (name, split, n) in enumerate(
        (name, split, n) for name in ("cat", "dog") for split in ("train", "test") for n in range(3)
    ):
        files[f"{name}/{split}/{n}.png"] = encode(pixels(i))
    data = read(tmp_path, files)
    assert data.class_names == ("cat", "dog")
    assert [len(data.splits[split][1]) for split in ("train", "test")] == [6, 6]
    assert data.notes == ("class folders hold the splits: taken as CLASS/SPLIT",)
    forced = read(tmp_path, files, layout="classes")
    assert len(forced.splits["train"][1]) + len(forced.splits["test"][1]) == 12


def test_parts_are_taken_together_and_said(tmp_path):
    files = tree(splits=("fold1", "fold2", "fold3"))
    data = read(tmp_path, files)
    assert data.class_names == ("ant", "bee")
    assert sum(len(labels) for _, labels in data.splits.values()) == 30
    assert "fold1, fold2, fold3 hold the same class folders (ant, bee)" in data.notes[0]
    assert "config.data.layout" in data.notes[0]
    assert read(tmp_path, files, layout="classes").class_names == ("fold1", "fold2", "fold3")
    with_splits = {f"fold{k}/{name}": data for k in (1, 2) for name, data in tree().items()}
    refused(lambda: read(tmp_path, with_splits), "set.zip", "same classes", ".../fold1")
    domains = {
        n.replace("fold1", "art").replace("fold2", "photo"): d for n, d in with_splits.items()
    }
    refused(lambda: read(tmp_path, domains), "set.zip", "same classes", ".../art")


def test_repeated_subfolders_that_may_be_either_are_a_stated_guess(tmp_path):
    files = tree(splits=("indoor", "outdoor"), classes=("cat", "dog"))
    data = read(tmp_path, files)
    assert data.class_names == ("indoor", "outdoor") and "taken for the classes" in data.notes[0]
    assert read(tmp_path, files, layout="parts").class_names == ("cat", "dog")


@pytest.mark.parametrize(
    "masks",
    [
        ["{c}/images/{n}.png", "{c}/masks/{n}.png"],
        ["images/{c}/{n}.png", "masks/{c}/{n}.png"],
        ["train/images/{c}/{n}.png", "train/masks/{c}/{n}.png"],
        ["train_images/{c}/{n}.png", "train_masks/{c}/{n}.png"],
        ["{c}/{n}.png", "{c}_mask/{n}.png"],
        ["{c}/images/{n}.png", "{c}/masks/{n}_mask.png"],
    ],
)
def test_masks_are_not_trained_on(tmp_path, masks):
    files, marks = {}, [name for name in masks]
    for i, c in enumerate(("cat", "dog")):
        for n in range(3):
            files[marks[0].format(c=c, n=n)] = encode(pixels(3 * i + n))
            files[marks[1].format(c=c, n=n)] = encode(np.zeros((6, 6, 3)))
    data = read(tmp_path, files)
    assert data.class_names == ("cat", "dog")
    images = np.concatenate([images for images, _ in data.splits.values()])
    assert len(images) == 6 and images.any(axis=(1, 2, 3)).all()
    assert data.notes[0].startswith("6 masks next to pictures left out (")


def test_classes_called_mask_stay(tmp_path):
    files = tree(splits=("",), classes=("with_mask", "without_mask"))
    assert read(tmp_path, files).class_names == ("with_mask", "without_mask")
    files = tree(splits=("",), classes=("mask", "no_mask"))
    assert read(tmp_path, files).class_names == ("mask", "no_mask")
    files = tree(splits=("",), classes=("label_1", "label_2"))
    assert read(tmp_path, files).class_names == ("label_1", "label_2")
    names = ("cat", "dog", "ski", "ski mask")  # two classes of ImageNet
    assert read(tmp_path, tree(splits=("",), classes=names)).class_names == names
    names = ("face", "face_mask")
    assert read(tmp_path, tree(splits=("",), classes=names)).class_names == names


def test_thumbnails_of_a_disk_station_are_no_images(tmp_path):
    files = tree() | {f"train/ant/@eaDir/{i}.png/THUMB.png": encode(pixels(i)) for i in range(4)}
    data = read(tmp_path, files)
    assert len(data.splits["train"][1]) == 10
    thumb = "train/ant/@eaDir/0.png/THUMB.png"
    assert data.notes == (f"4 stray files (4 .png) ignored, such as {thumb}",)


@pytest.mark.parametrize("other", ["train_aug", "test_hard", "old_train"])
def test_what_is_left_out_is_not_trained_on(tmp_path, other):
    files = tree() | {
        f"{other}/{c}/{n}.png": encode(pixels(n)) for c in ("ant", "rat") for n in (1, 2)
    }
    data = read(tmp_path, files)
    assert data.class_names == ("ant", "bee") and counts(data) == {"train": 10, "test": 10}
    assert data.notes[0] == f"folders next to the splits left out: {other}"


def test_class_first_with_strays_or_without_a_split(tmp_path):
    files = {
        f"{name}/{split}/{n}.png": encode(pixels(n))
        for name in ("cat", "dog")
        for split in ("train", "test")
        for n in range(3)
    }
    data = read(tmp_path, files | {"cat/x.png": encode(pixels(9))})
    assert counts(data) == {"train": 6, "test": 6} and "1 stray file (1 .png)" in data.notes[-1]
    half = {n: d for n, d in files.items() if not n.startswith("dog")} | {
        "dog/1.png": encode(pixels(1))
    }
    refused(lambda: read(tmp_path, half), "set.zip", "cat holds splits, and dog does not")
    no_train = {n.replace("train", "val"): d for n, d in files.items()}
    refused(lambda: read(tmp_path, no_train), "set.zip", "and no train")


@pytest.mark.parametrize("wrap", ["dogs_train", "my_test", "test_data", "food_train/x"])
@pytest.mark.parametrize("splits", [("train", "test"), ("",)])
def test_wrapping_folders_may_have_any_name(tmp_path, wrap, splits):
    if wrap == "test_data" and splits == ("",):
        return  # test_data/CLASS is a test split without a training split
    files = {f"{wrap}/{name}": data for name, data in tree(splits=splits).items()}
    data = read(tmp_path, files | {"x.png": encode(pixels(1))})
    assert data.class_names == ("ant", "bee")
    assert counts(data)["train"] == (10 if splits != ("",) else 8)


def test_a_folder_that_repeats_its_siblings_is_refused(tmp_path):
    files = tree(splits=("", "flowers"))
    refused(lambda: read(tmp_path, files), "set.zip", "flowers holds folders", "remove one")


def test_numbered_splits_and_a_flat_test(tmp_path):
    years = renamed(tree(), ("train/", "train2017/"), ("test/", "test2018/"))
    assert counts(read(tmp_path, years)) == {"train": 10, "test": 10}
    parts = tree(splits=("train_1", "train_2", "test"))
    assert counts(read(tmp_path, parts)) == {"train": 20, "test": 10}
    flat = renamed(tree(splits=("train",)), ("train/", "train/train/"))
    flat |= {f"test/test/{n}.png": encode(pixels(n)) for n in range(3)}
    data = read(tmp_path, flat)
    assert "3 test images without class folders left out" in data.notes


def test_the_keys_choices_are_the_layouts():
    assert schema("mtt")["data.layout"].choices == layout.LAYOUTS


def test_a_test_split_inside_the_classes_is_refused(tmp_path):
    files = tree(splits=("", "test"))
    refused(lambda: read(tmp_path, files), "set.zip", "test holds folders", "into a folder train")


def test_other_files_in_a_folder_are_named(tmp_path):
    folder = write_folder(tmp_path / "set", {"data/train.mat": FORMATS["a.mat"][0]})
    asked = {"name": "mine", "path": str(folder)}
    refused(lambda: load_raw(asked), "train.mat", "MATLAB .mat", ".npz")
    flat = {f"{split}/{n}.png": encode(pixels(n)) for split in ("train", "test") for n in range(3)}
    line = refused(lambda: read(tmp_path, flat), "set.zip", "none in a class folder")
    assert "--config.data.layout=classes" in line
    assert read(tmp_path, flat, layout="classes").class_names == ("test", "train")


def test_the_layout_key(tmp_path):
    refused(lambda: read(tmp_path, tree(), layout="sideways"), "config.data.layout", "class_splits")
    arrays = {"images": np.zeros((4, 6, 6), np.uint8), "labels": np.array([0, 1, 0, 1])}
    np.savez(tmp_path / "a.npz", **arrays)
    asked = {"name": "mine", "path": str(tmp_path / "a.npz"), "layout": "parts"}
    refused(lambda: load(asked), "config.data.layout", "folders")
    splits = tree(classes=("ant", "bee"))
    assert read(tmp_path, splits, layout="classes").class_names == ("test", "train")


def test_splits_call_a_class_alike_but_for_case(tmp_path):
    data = read(tmp_path, renamed(tree(), ("test/ant", "test/Ant")))
    assert data.class_names == ("ant", "bee")
    assert data.notes == ("test: class folder Ant is ant of train",)


def test_split_words():
    assert layout.split_of("training_set") == ("train", frozenset())
    assert layout.split_of("seg_test") == ("test", frozenset({"seg"}))
    assert layout.split_of("Validation") == ("val", frozenset())
    for name in ("latest", "trainer", "contest", "train_test", "steam train station 2"):
        said = layout.split_of(name)
        assert said is None or said[1], name


def test_links_to_siblings_are_followed_and_loops_are_cut(tmp_path):
    folder = write_folder(tmp_path / "set", tree(splits=("train",)))
    (folder / "test").symlink_to("train")
    (folder / "train/cow").symlink_to("ant")
    (folder / "train/ant/loop").symlink_to(folder)
    (folder / "train/bee/up").symlink_to("..")
    for a in range(7):  # folders that link to each other end
        (folder / f"lost+found/{a}").mkdir(parents=True)
        for b in range(7):
            (folder / f"lost+found/{a}/{b}").symlink_to(f"../{b}")
    data = load_raw({"name": "mine", "path": str(folder)})
    assert data.class_names == ("ant", "bee", "cow") and data.notes == ()
    assert [len(data.splits[split][1]) for split in ("train", "test")] == [15, 15]


def test_backslash_archives_count_no_folder_as_a_file(tmp_path):
    files = {name.replace("/", "\\"): data for name, data in tree().items()}
    files |= {"train\\": b"", "train\\ant\\": b""}
    data = load_raw({"name": "mine", "path": str(write_zip(tmp_path / "set.zip", files))})
    assert data.class_names == ("ant", "bee") and data.notes == ()


FORMATS = {
    "a.parquet": (b"PAR1" + bytes(60), "Parquet"),
    "a.npy": (b"\x93NUMPY\x01\x00" + bytes(60), "NumPy .npy"),
    "a.mat": (b"MATLAB 5.0 MAT-file" + bytes(200), "MATLAB .mat"),
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "HDF5"),
    "a.7z": (b"7z\xbc\xaf\x27\x1c" + bytes(60), "7z archive"),
    "a.rar": (b"Rar!\x1a\x07" + bytes(60), "RAR archive"),
    "train-images-idx3-ubyte": (b"\x00\x00\x08\x03" + bytes(60), "IDX file"),
    "data_batch_1": (b"\x80\x02}q\x01" + bytes(60), "Python pickle"),
    "a.tfrecord": (b"\x10\x27" + bytes(60), "TFRecords"),
    "a.csv": (b"file,label\n1.png,0\n" * 9, "a table of text"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_files_that_are_no_archive_are_named(tmp_path, name, packed):
    import gzip

    content, words = FORMATS[name]
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    if packed and name in ("a.tfrecord", "a.csv"):
        words = "not a whole archive"
    line = refused(lambda: load_raw({"name": "mine", "path": str(path)}), name, words)
    assert ".npz" in line or "pack it" in line or "tfds" in line or "a whole file" in line or packed


def test_a_tar_of_masks_agrees_with_a_zip(tmp_path):
    files = tree(splits=("train/images", "train/masks"))
    first = load_raw({"name": "m", "path": str(write_zip(tmp_path / "a.zip", files))})
    second = load_raw({"name": "m", "path": str(write_tar(tmp_path / "a.tar", files))})
    assert np.array_equal(first.splits["train"][0], second.splits["train"][0])
    assert first.notes == second.notes
