"""The folder source: layouts, archives, and one line for whatever is wrong."""

import io
import stat
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from jdd.data import load, load_raw
from tests.data.tiny_sets import (
    encode,
    pixels,
    refused,
    tree,
    write_folder,
    write_tar,
    write_zip,
)


def mine(path, **options):
    return {"name": "mine", "path": str(path), **options}


WRITERS = {
    "set": write_folder,
    "set.zip": write_zip,
    "set.tar": write_tar,
    "set.tar.xz": write_tar,
    "set.tar.gz": write_tar,
    "set.tar.bz2": write_tar,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_and_every_archive_of_it_agree(tmp_path, name):
    files = tree()
    data = load_raw(mine(WRITERS[name](tmp_path / name, files)))
    train, labels = data.splits["train"]
    assert train.dtype == np.uint8 and data.class_names == ("ant", "bee") and data.notes == ()
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert np.array_equal(train, np.stack([pixels(i) for i in range(10)]))
    assert np.array_equal(data.splits["test"][0], np.stack([pixels(i) for i in range(10, 20)]))


def test_the_order_of_an_archive_does_not_matter(tmp_path):
    files = tree()
    forth = load(mine(write_zip(tmp_path / "a.zip", files)))
    back = load(mine(write_zip(tmp_path / "b.zip", dict(reversed(files.items())))))
    assert forth.fingerprint == back.fingerprint


def test_many_images_keep_their_order_over_threads(tmp_path):
    files = tree(splits=("train",), count=300, size=2)
    data = load_raw(mine(write_zip(tmp_path / "set.zip", files), test=0.01))
    assert sum(len(labels) for _, labels in data.splits.values()) == 600
    whole = {p.tobytes(): i // 300 for i in range(600) for p in [pixels(i, 2)]}
    for images, labels in data.splits.values():
        assert [whole[image.tobytes()] for image in images] == labels.tolist()


@pytest.mark.parametrize("writer", [write_folder, write_zip])
def test_strays_are_ignored_and_noted(tmp_path, writer):
    strays = ["README.txt", "train/ant/Thumbs.db", "train/.DS_Store", "__MACOSX/train/ant/._0.png",
              "train/loose.png", "extra/other/1.png"]  # fmt: skip
    files = tree() | {name: encode(pixels(0)) for name in strays}
    data = load(mine(writer(tmp_path / "set.zip", files)))
    assert len(data.train.labels) == 10
    left_out, stray = data.notes
    assert left_out == "folders next to the splits left out: extra"
    assert stray.startswith("6 stray files (") and stray.endswith(" ignored, such as README.txt")
    assert "3 .png" in stray and "1 .txt" in stray


def test_one_folder_around_everything_is_looked_through(tmp_path):
    for splits in (("train", "test"), ("",)):
        files = {f"./wrap/inner/{name}": data for name, data in tree(splits=splits).items()}
        files |= {"wrap/LICENSE": b"text"}
        data = load(mine(write_tar(tmp_path / f"{len(splits)}.tar", files)))
        assert (
            data.class_names == ("ant", "bee")
            and "1 stray file (1 LICENSE) ignored: wrap/LICENSE" in data.notes
        )


def test_deeper_folders_inside_a_class_belong_to_it(tmp_path):
    files = {n.replace("ant/", "ant/images/"): d for n, d in tree().items()}
    assert load(mine(write_zip(tmp_path / "set.zip", files))).class_names == ("ant", "bee")


def test_validation_stands_in_for_a_missing_test_split(tmp_path):
    data = load(mine(write_zip(tmp_path / "set.zip", tree(splits=("train", "val")))))
    assert data.val is None and len(data.test.labels) == 10
    assert "no test split found: the validation split is the test split" in data.notes


def test_numbered_classes_are_in_the_order_of_the_numbers(tmp_path):
    names = [str(i) for i in range(12)]
    files = tree(classes=names, count=2, size=2)
    assert load(mine(write_zip(tmp_path / "set.zip", files))).class_names == tuple(names)


def test_words_for_class_ids_are_shown(tmp_path):
    files = tree(classes=("n01", "n02", "n03"))
    files["classes.txt"] = b"n03\tcrane\nn01\tcrane, a bird\nn02\tgoldfish, Carassius auratus\n"
    data = load(mine(write_zip(tmp_path / "set.zip", files)))
    assert data.class_names == ("crane (n01)", "goldfish", "crane (n03)")


def test_a_flat_validation_folder_is_labelled_by_its_annotations(tmp_path):
    files = tree(splits=("train",))
    files |= {f"val/images/val_{i}.png": encode(pixels(i)) for i in range(4)}
    files |= {f"test/images/test_{i}.png": encode(pixels(i)) for i in range(3)}
    rows = [f"val_{i}.png\t{'ant' if i % 2 else 'bee'}\t0\t0\t5\t5" for i in range(4)]
    files["val/val_annotations.txt"] = "\n".join(rows).encode()
    data = load(mine(write_zip(tmp_path / "set.zip", files)))
    assert data.test.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(
        data.transform.inverse(data.test.images[1:2]), pixels(1)[None] / 255, atol=1e-5
    )
    assert any(note.startswith("3 test images without class folders") for note in data.notes)


def test_grey_colour_and_mixed(tmp_path):
    grey = load(mine(write_zip(tmp_path / "g.zip", tree(grey=True))))
    assert grey.shape == (6, 6, 1) and grey.notes == ()
    files = tree() | {"train/ant/9.png": encode(pixels(9, grey=True))}
    mixed = load(mine(write_zip(tmp_path / "m.zip", files)))
    assert mixed.shape == (6, 6, 3)
    assert mixed.notes == ("train: 1 of 11 images are grey and were made RGB",)
    greys = {n: d for n, d in tree(grey=True).items() if n.startswith("test")}
    files = {n: d for n, d in tree().items() if n.startswith("train")} | greys
    assert load(mine(write_zip(tmp_path / "s.zip", files))).test.images.shape[-1] == 3


def test_alpha_and_palettes_become_plain_pixels(tmp_path):
    files = tree()
    for mode in ("RGBA", "P", "CMYK"):
        out = io.BytesIO()
        Image.fromarray(pixels(0)).convert(mode).save(out, "PNG" if mode != "CMYK" else "JPEG")
        files[f"train/ant/{mode}.{'png' if mode != 'CMYK' else 'jpg'}"] = out.getvalue()
    assert load(mine(write_zip(tmp_path / "set.zip", files))).train.images.shape == (13, 6, 6, 3)


def test_images_of_different_sizes(tmp_path):
    files = tree() | {"train/bee/7.png": encode(pixels(7, size=9))}
    path = write_zip(tmp_path / "set.zip", files)
    refused(lambda: load(mine(path)), "train/bee/7.png", "9x9", "6x6", "--config.data.size=32")
    assert load(mine(path, size=8)).shape == (8, 8, 3)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "set"])
@pytest.mark.parametrize("damage", ["empty", "truncated", "text"])
def test_broken_archives(tmp_path, name, damage):
    path = WRITERS[name](tmp_path / name, tree())
    whole = path.read_bytes()
    cut = whole[: len(whole) * 2 // 3]
    path.write_bytes({"empty": b"", "truncated": cut, "text": b"hi " * 999}[damage])
    words = "empty file" if damage == "empty" else "not a whole archive"
    refused(lambda: load(mine(path)), str(path), words)


def test_an_empty_folder(tmp_path):
    (tmp_path / "set").mkdir()
    refused(lambda: load(mine(tmp_path / "set")), "set", "no images found, 0 other files")


def test_a_tar_cut_between_two_entries_is_not_taken_for_a_whole_one(tmp_path):
    path = write_tar(tmp_path / "set.tar", tree())
    with tarfile.open(path) as archive:
        cut = archive.getmembers()[12].offset
    path.write_bytes(path.read_bytes()[:cut])
    refused(lambda: load(mine(path)), str(path), "truncated")


def test_a_damaged_member_is_found(tmp_path):
    path = write_zip(tmp_path / "set.zip", tree())
    data = bytearray(path.read_bytes())
    data[120] ^= 255  # inside the first image: its checksum no longer holds
    path.write_bytes(data)
    refused(lambda: load(mine(path)), str(path))


@pytest.mark.parametrize("writer", [write_zip, write_tar])
@pytest.mark.parametrize("name", ["../evil.png", "/etc/evil.png", "train/../../evil.png",
                                  "..\\evil.png", "C:/evil.png"])  # fmt: skip
def test_entries_that_point_outside(tmp_path, writer, name):
    path = writer(tmp_path / "set", tree() | {name: encode(pixels(0))})
    refused(lambda: load(mine(path, source="folder")), name, "points outside")


def test_links_in_archives(tmp_path):
    path = write_zip(tmp_path / "set.zip", tree())
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("train/ant/link.png")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    refused(lambda: load(mine(path)), "link.png", "is a link")
    path = write_tar(tmp_path / "set.tar", tree())
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo("train/ant/link.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    refused(lambda: load(mine(path)), "link.png", "is a link")


def test_an_encrypted_zip(tmp_path):
    path = write_zip(tmp_path / "set.zip", tree())
    data = bytearray(path.read_bytes())
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(magic)
        while at >= 0:
            data[at + offset] |= 1
            at = data.find(magic, at + 4)
    path.write_bytes(data)
    refused(lambda: load(mine(path)), str(path), "encrypted")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("train/ant/0.png", b"", "empty file"),
        ("train/ant/0.png", b"this is no image", "not an image"),
        ("train/ant/0.png", encode(pixels(0, 40))[:900], "damaged image"),
        ("train/ant/0.jpg", encode(pixels(0, 40), "JPEG")[:700], "damaged image"),
    ],
)
def test_broken_images_are_named(tmp_path, name, content, word):
    path = write_zip(tmp_path / "set.zip", tree() | {name: content})
    refused(lambda: load(mine(path)), f"{path}:{name}", word)


def test_deep_images_are_not_clipped_silently(tmp_path):
    out = io.BytesIO()
    Image.fromarray(np.full((6, 6), 40000, np.uint16)).save(out, "PNG")
    path = write_zip(tmp_path / "set.zip", tree() | {"train/ant/0.png": out.getvalue()})
    refused(lambda: load(mine(path)), "0.png", "8 bits")


def test_classes_without_images(tmp_path):
    folder = write_folder(tmp_path / "set", tree())
    (folder / "train/cat").mkdir()
    refused(lambda: load(mine(folder)), str(folder), "'cat'", "no images")
    files = tree(splits=("",)) | {"cat/notes.txt": b"none yet"}
    path = write_zip(tmp_path / "set.zip", files)
    refused(lambda: load(mine(path)), str(path), "'cat'", "no images")


def test_wrong_layouts(tmp_path):
    def zipped(files):
        return mine(write_zip(tmp_path / "set.zip", files))

    image = encode(pixels(0))
    refused(lambda: load(zipped({"a.txt": b"x", "b.pdf": b"y"})), "set.zip", "2 other files")
    refused(lambda: load(zipped({})), "set.zip", "without entries")
    refused(lambda: load(zipped({"1.png": image, "2.png": image})), "set.zip", "class folder")
    refused(lambda: load(zipped({"ant/1.png": image})), "set.zip", "1 class (ant)")
    refused(lambda: load(zipped(tree(splits=("test",)))), "set.zip", "no train")
    extra = tree() | {"test/cat/1.png": image}
    refused(lambda: load(zipped(extra)), "set.zip", "'cat' is in test but not in train")


def test_a_test_split_may_lack_a_class(tmp_path):
    files = {n: d for n, d in tree().items() if not n.startswith("test/bee")}
    data = load(mine(write_zip(tmp_path / "set.zip", files)))
    assert data.notes == ("test: 1 of 2 classes have no images",)


CIFAR = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


def test_jpeg_files_never_pass_for_a_lossless_dataset(tmp_path):
    files = tree(classes=CIFAR, count=2, size=32, end="jpg")
    path = str(write_tar(tmp_path / "set.tar.xz", files))
    refused(lambda: load({"name": "cifar10", "path": path}), ".jpg", "lossy", "cifar10_jpeg")
    data = load({"name": "cifar10_jpeg", "path": path})
    assert data.class_names == CIFAR and any("lossy" in note for note in data.notes)
    assert data.transform.mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465])
    digits = tree(classes="0123456789", count=2, size=28, end="jpg", grey=True)
    path = str(write_zip(tmp_path / "mnist.zip", digits))
    refused(lambda: load({"name": "mnist", "path": path}), ".jpg", "name of your own")


def test_a_known_dataset_decides_channels_classes_and_size(tmp_path):
    files = tree(classes="0123456789", count=2, size=28)  # colour files of a grey dataset
    data = load({"name": "mnist", "path": str(write_zip(tmp_path / "a.zip", files))})
    assert data.shape == (28, 28, 1)
    path = str(write_zip(tmp_path / "b.zip", tree(classes="012345678", count=2, size=28)))
    refused(lambda: load({"name": "mnist", "path": path}), path, "9 classes", "mnist has 10")
    path = str(write_zip(tmp_path / "c.zip", tree(classes="0123456789", count=2, size=20)))
    refused(lambda: load({"name": "mnist", "path": path}), path, "20x20x1", "28x28x1", "size=28")
    assert load({"name": "mnist", "path": path, "size": 28}).shape == (28, 28, 1)
    small = load({"name": "mnist", "path": path, "size": 14})
    assert small.shape == (14, 14, 1) and any("not mnist as published" in n for n in small.notes)
    path = str(write_zip(tmp_path / "d.zip", tree(classes=(*CIFAR[:9], "lorry"), count=2, size=32)))
    refused(lambda: load({"name": "cifar10", "path": path}), path, "'lorry'")


def test_names_a_folder_cannot_have_still_match(tmp_path):
    from jdd.data import CATALOGUE

    names = CATALOGUE["fashion_mnist"].class_names
    folders = [name.replace("/", "_").replace(" ", "_") for name in names]
    files = tree(classes=folders, count=1, size=28, grey=True)
    data = load({"name": "fashion_mnist", "path": str(write_zip(tmp_path / "a.zip", files))})
    assert data.class_names == names
    bag = folders.index("Bag")
    np.testing.assert_allclose(
        data.transform.inverse(data.train.images[data.train.labels == bag])[0, ..., 0],
        pixels(bag, 28, grey=True) / 255,
        atol=1e-5,
    )


def test_an_unreadable_file_is_named(tmp_path):
    folder = write_folder(tmp_path / "set", tree())
    (folder / "train/ant/9.png").symlink_to(tmp_path / "gone.png")
    refused(lambda: load(mine(folder)), "9.png", "No such file")


def test_linked_folders_are_followed_once(tmp_path):
    folder = write_folder(tmp_path / "set", tree())
    (folder / "train/cow").symlink_to(write_folder(tmp_path / "cow", {"1.png": encode(pixels(1))}))
    (folder / "train/ant/loop").symlink_to(folder)
    assert load(mine(folder)).class_names == ("ant", "bee", "cow")


def test_a_subset_of_another_name_is_suggested(tmp_path):
    names = [f"n{i:03d}" for i in range(100)]
    files = tree(classes=names, count=1, size=64, splits=("train", "val"))
    path = str(write_zip(tmp_path / "tiny.zip", files))
    refused(lambda: load({"name": "tiny_imagenet", "path": path}), path, "tiny_imagenet_100")
