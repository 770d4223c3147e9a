"""A class is trained under its own label, whatever its folder is called, or not at all."""

import numpy as np
import pytest

from jdd import interop
from jdd.data import class_names, load_raw
from jdd.data.catalogue import CATALOGUE
from jdd.errors import BadInput
from tests.data.tiny_sets import refused, tree, write_folder, write_zip

CIFAR = CATALOGUE["cifar10"].class_names
DIGITS = CATALOGUE["mnist"].class_names
WORDS = "zero one two three four five six seven eight nine".split()


def matched(folders, dataset="cifar10", classes=None):
    return class_names.match(folders, classes or CATALOGUE[dataset].class_names, "set", dataset)


def test_synonyms_move_no_other_class():
    """The worst case found: ``plane`` and ``car`` among CIFAR-10's names."""
    folders = ["plane", "car", *CIFAR[2:]]
    found = matched(folders)
    assert found.labels == {"plane": 0, "car": 1} | {n: i for i, n in enumerate(CIFAR) if i > 1}
    assert found.notes == ("class names matched loosely: car is automobile, plane is airplane",)
    assert matched(CIFAR).notes == ()


@pytest.mark.parametrize(
    "folders",
    [
        WORDS,
        [word.title() for word in WORDS],
        [f"0{digit}" for digit in DIGITS],
        [f"class_{digit}" for digit in DIGITS],
        [f"{i}_{word}" for i, word in enumerate(WORDS)],
    ],
)
def test_digits_in_any_writing_are_themselves(folders):
    found = matched(folders, "mnist")
    assert [found.labels[name] for name in folders] == list(range(10))
    assert found.notes and "matched loosely" in found.notes[0]


@pytest.mark.parametrize(
    ("name", "label"),
    [("Airplane", 0), ("AUTOMOBILES", 1), ("3_cat", 3), ("7-horse", 7), ("aeroplane", 0)],
)
def test_loose_names(name, label):
    assert matched([name]).labels == {name: label}


def test_numbers_are_labels_and_said():
    found = matched([str(i) for i in range(10)])
    assert list(found.labels.values()) == list(range(10))
    assert "0 is airplane" in found.notes[0] and "cifar10" in found.notes[0]
    assert matched([str(i) for i in range(10)], "mnist").notes == ()
    for folders in ([str(i) for i in range(1, 10)], ["0", "10"], ["0", "1", "bird"]):
        with pytest.raises(BadInput, match="not among the classes of cifar10"):
            matched(folders)
    assert matched([str(i) for i in range(1, 11)], "svhn").labels["10"] == 0
    for odd in ("3_5", "-1", "1.0"):
        with pytest.raises(BadInput, match="not among"):
            matched([odd], "mnist")


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (["lorry", *CIFAR[:9]], "'lorry'"),
        (["airplan", "brid"], "'airplan' for 'airplane', 'brid' for 'bird'"),
        (["airplane", "plane"], "both class 'airplane'"),
        (["zebra", "bird"], "or give folders 0 to 9 in that order"),
    ],
)
def test_other_names_are_refused(folders, words):
    with pytest.raises(BadInput, match=words):
        matched(folders)


def test_colliding_and_duplicate_names_go_by_their_numbers():
    twins = ("crane", "a b", "a_b", "crane")
    folders = [f"{i}_{class_names.safe(name)}" for i, name in enumerate(twins)]
    found = class_names.match(folders, twins, "set", "mine")
    assert [found.labels[name] for name in folders] == [0, 1, 2, 3] and found.notes == ()
    with pytest.raises(BadInput, match="'crane' is there twice: call its folders NUMBER_crane"):
        class_names.match(["crane"], twins, "set", "mine")
    assert class_names.unnumbered(folders) == tuple(folders)
    assert class_names.unnumbered(["0_ant", "1_bee"]) == ("ant", "bee")


def test_one_name_in_two_unicode_forms():
    assert matched(["cafe\u0301"], classes=["caf\u00e9", "bar"]).labels == {"cafe\u0301": 0}


def test_other_words_for_all_classes():
    names = ["Airplane", "car", *CIFAR[2:]]
    assert "car is automobile" in class_names.validate_same(names, CIFAR, "set", "cifar10")[0]
    notes = class_names.validate_same(DIGITS, CIFAR, "set", "cifar10")
    assert notes[0].startswith("classes are num")
    assert class_names.validate_same(WORDS, DIGITS, "set", "mnist")
    for theirs, dataset, words in (
        (CIFAR[::-1], "cifar10", "in the order truck"),
        (WORDS[::-1], "mnist", "in the order nine"),
        (("a", "b", *CIFAR[2:]), "cifar10", "'a', 'b'"),
        (CIFAR[:9], "cifar10", "9 classes"),
        (CIFAR, "mnist", "not among the classes of mnist"),
    ):
        with pytest.raises(BadInput, match=words):
            class_names.validate_same(theirs, CATALOGUE[dataset].class_names, "set", dataset)


def test_a_folder_dataset_is_matched_too(tmp_path):
    folders = ["plane", "car", *CIFAR[2:]]
    path = write_folder(tmp_path / "set", tree(classes=folders, count=1, size=32))
    data = load_raw({"name": "cifar10", "path": str(path)})
    images, labels = data.splits["train"]
    by_folder = {name: i for i, name in enumerate(folders)}  # tree() draws in this order
    whole = [by_folder[{"airplane": "plane", "automobile": "car"}.get(n, n)] for n in CIFAR]
    assert data.class_names == CIFAR and sorted(labels) == list(range(10))
    from tests.data.tiny_sets import pixels

    for image, label in zip(images, labels, strict=True):
        assert np.array_equal(image, pixels(whole[label], 32))
    assert any("plane is airplane" in note for note in data.notes)
    path = write_zip(tmp_path / "b.zip", tree(classes=CIFAR[:9], count=1, size=32))
    refused(lambda: load_raw({"name": "cifar10", "path": str(path)}), path, "without truck")


def test_a_foreign_set_of_class_folders_keeps_its_classes(tmp_path):
    folders = ["plane", "car", *CIFAR[2:]]
    path = write_folder(tmp_path / "set", tree(splits=("",), classes=folders, count=1, size=32))
    found = interop.load(path, dataset="cifar10")
    names = sorted(folders)
    wanted = {"plane": "airplane", "car": "automobile"}
    assert found.labels.tolist() == [CIFAR.index(wanted.get(n, n)) for n in names]
    assert found.notes == ("class names matched loosely: car is automobile, plane is airplane",)
    path = write_folder(tmp_path / "other", tree(splits=("",), classes=WORDS, count=1, size=32))
    refused(lambda: interop.load(path, dataset="cifar10"), path, "'eight'")
    words = interop.load(path, dataset="svhn")
    assert words.labels.tolist() == [WORDS.index(name) for name in sorted(WORDS)]


def test_an_npz_names_each_class_once(tmp_path):
    arrays = {"images": np.zeros((4, 6, 6), np.uint8), "labels": np.array([0, 1, 0, 1])}
    np.savez(tmp_path / "a.npz", **arrays, class_names=np.array(["crane", "crane"]))
    asked = {"name": "mine", "path": str(tmp_path / "a.npz")}
    refused(lambda: load_raw(asked), "a.npz:class_names", "'crane' more than once")
