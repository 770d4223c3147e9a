"""Training labels of a file or corrupted; nothing of them reaches test labels or normalisation."""

from __future__ import annotations

import numpy as np
import pytest

from jdd.data import label_noise, load
from jdd.errors import BadInput
from jdd.main import main
from jdd.product.distilled_set import DistilledSet
from jdd.schema.common import Data

PAIRED = {"noise": "asymmetric", "noise_rate": 0.2}


def asked(**keys):
    return Data(name="digits", **keys)


@pytest.fixture(scope="module")
def own():
    return load({"name": "digits"})


def test_symmetric_and_asymmetric_rows():
    rows = label_noise.transition(asked(noise="symmetric", noise_rate=0.4), 5)
    np.testing.assert_allclose(rows, np.full((5, 5), 0.1) + 0.5 * np.eye(5))
    rows = label_noise.transition(asked(noise="asymmetric", noise_rate=0.3), 3)
    np.testing.assert_allclose(rows, [[0.7, 0.3, 0], [0, 0.7, 0.3], [0.3, 0, 0.7]])
    given = asked(noise="asymmetric", noise_rate=0.3, noise_pairs="2:0")
    np.testing.assert_allclose(
        label_noise.transition(given, 3), [[1, 0, 0], [0, 1, 0], [0.3, 0, 0.7]]
    )
    cifar = Data(name="cifar10", noise="asymmetric", noise_rate=0.5)
    moved = {(i, j) for i, j in np.argwhere(label_noise.transition(cifar, 10) == 0.5) if i != j}
    assert moved == {(9, 1), (2, 0), (3, 5), (5, 3), (4, 7)}
    lossy = Data(name="cifar10_jpeg", noise="asymmetric", noise_rate=0.5)
    np.testing.assert_array_equal(*(label_noise.transition(d, 10) for d in (cifar, lossy)))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"noise": "symmetric"}, "symmetric noise, seed 0"),
        ({"noise": "asymmetric"}, "asymmetric noise to the next class, seed 0"),
        ({"noise": "asymmetric", "noise_pairs": "2:1,0:1"}, "asymmetric noise 0:1,2:1, seed 0"),
        ({"noise": "asymmetric", "name": "cifar10"}, "asymmetric noise 2:0,3:5,4:7,5:3,9:1, seed"),
    ],
)
def test_the_note_has_what_fixes_the_noise(keys, words):
    data = Data(**{"name": "digits", "noise_rate": 0.2, **keys})
    clean = np.arange(1000, dtype=np.int32) % 10
    _, note = label_noise.labels(data, clean, 10, [str(c) for c in range(10)])
    assert note.startswith(f"training labels: {words}") and "differ from the dataset's" in note


def test_corrupted_labels_have_the_rows_as_frequencies():
    matrix = np.array([[0.6, 0.3, 0.1], [0, 1, 0], [0.2, 0.2, 0.6]])
    clean = np.repeat(np.arange(3, dtype=np.int32), 20000)
    noisy = label_noise.corrupted(clean, matrix, 0)
    np.testing.assert_allclose(label_noise.empirical(clean, noisy, 3), matrix, atol=0.015)
    np.testing.assert_array_equal(noisy, label_noise.corrupted(clean, matrix, 0))
    assert (noisy != label_noise.corrupted(clean, matrix, 1)).any()
    # A class that the first array lacks keeps its labels.
    np.testing.assert_allclose(label_noise.empirical(clean * 0, noisy, 3)[1:], np.eye(3)[1:])


@pytest.mark.parametrize("keys", [{}, {"val": 0.1}, {"zca": "kornia"}])
def test_nothing_noisy_reaches_test_labels_or_the_transform(keys, tmp_path):
    base = {"name": "digits", "cache_dir": str(tmp_path), **keys}
    clean = load(base)
    noisy = load(base | {"noise": "symmetric", "noise_rate": 0.4})
    np.testing.assert_array_equal(noisy.test.labels, clean.test.labels)
    for name in ("mean", "std", "zca_mean", "zca_matrix"):
        a, b = getattr(clean.transform, name), getattr(noisy.transform, name)
        assert a is b is None or np.array_equal(a, b)
    np.testing.assert_array_equal(noisy.train.images, clean.train.images)
    np.testing.assert_array_equal(noisy.clean, clean.train.labels)
    assert clean.clean is None and noisy.fingerprint != clean.fingerprint
    share = np.mean(noisy.train.labels != noisy.clean)
    assert share == pytest.approx(0.4, abs=0.05)
    assert any("training labels: symmetric noise, seed 0; " in note for note in noisy.notes)
    if "val" in keys:  # held out of the training images, with their labels
        assert (noisy.val.labels != clean.val.labels).mean() == pytest.approx(0.4, abs=0.15)


def test_a_test_split_taken_from_the_training_images_stays_clean(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (90, 8, 8, 1), np.uint8)
    labels = np.repeat([0, 1, 2], 30)
    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    np.savetxt(tmp_path / "own.csv", (labels + 1) % 3, fmt="%d", header="noisy", comments="")
    base = {"name": "mine", "path": str(tmp_path / "set.npz"), "test": 0.2}
    clean, noisy = load(base), load(base | {"labels": f"{tmp_path / 'own.csv'}:noisy"})
    np.testing.assert_array_equal(noisy.test.labels, clean.test.labels)
    np.testing.assert_array_equal(noisy.train.labels, (clean.train.labels + 1) % 3)
    np.testing.assert_array_equal(noisy.train.images, clean.train.images)


def test_labels_of_a_file_are_compared_with_the_dataset(own, tmp_path):
    clean = own.train.labels
    worse = (clean + (np.arange(len(clean)) % 5 == 0)) % 10
    order = np.random.default_rng(1).permutation(len(clean))
    file = tmp_path / "noisy.npz"
    np.savez(file, clean_label=clean, worse_label=worse)
    found = load({"name": "digits", "labels": f"{file}:worse_label"})
    np.testing.assert_array_equal(found.train.labels, worse)
    # The rows of the file in another order, which the file gives.
    back = np.argsort(order)
    np.savez(file, clean_label=clean[back], worse_label=worse[back], image_order_tfds=order)
    found = load({"name": "digits", "labels": f"{file}:worse_label"})
    np.testing.assert_array_equal(found.train.labels, worse)
    assert any("rows in the order of image_order_tfds" in note for note in found.notes)
    np.savez(file, clean_label=clean[back], worse_label=worse[back])
    with pytest.raises(BadInput, match="its clean_label differs from the dataset's labels in"):
        load({"name": "digits", "labels": f"{file}:worse_label"})


def test_a_matrix_of_a_file_or_of_two_arrays(own, tmp_path):
    clean = own.train.labels
    noisy = label_noise.corrupted(clean, np.roll(np.eye(10), 1, 1) * 0.3 + np.eye(10) * 0.7, 3)
    np.savez(tmp_path / "a.npz", clean_label=clean, noisy=noisy, matrix=np.eye(10))
    two = asked(noise="matrix", noise_matrix=f"{tmp_path / 'a.npz'}:clean_label,noisy")
    np.testing.assert_allclose(
        label_noise.transition(two, 10), label_noise.empirical(clean, noisy, 10)
    )
    one = asked(noise="matrix", noise_matrix=f"{tmp_path / 'a.npz'}:matrix")
    np.testing.assert_array_equal(label_noise.transition(one, 10), np.eye(10))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"labels": "none.npz"}, "none.npz does not exist"),
        ({"labels": "{f}:worse"}, "a.npz: worse; .*one of long, high, half, rows, complex"),
        ({"labels": "{f}:long"}, "5 labels; one of each of the"),
        ({"labels": "{f}:high"}, "labels from 0 to 11; 0 to 9"),
        ({"labels": "{f}:half"}, "float64.*whole numbers"),
        ({"labels": "{f}:complex"}, "an array of complex128 .*; whole numbers"),
        ({"labels": "{f}"}, "no array named"),
        ({"labels": "{t}"}, "t.csv: no column named; .*t.csv:COLUMN, one of image, label"),
        ({"labels": "{f}:long", "noise": "symmetric"}, "config.data.noise: symmetric with data.la"),
        ({"noise": "symmetric"}, "config.data.noise_rate: 0 with data.noise=symmetric"),
        ({"noise_rate": 0.4}, "config.data.noise_rate: 0.4 with data.noise=none"),
        ({"noise": "matrix"}, "config.data.noise_matrix: empty with data.noise=matrix"),
        ({"noise": "matrix", "noise_matrix": "{f}:rows"}, "no probabilities"),
        ({"noise": "matrix", "noise_matrix": "{f}:long"}, r"an array \[5\]"),
        ({"noise": "matrix", "noise_matrix": "{f}:words"}, "an array of <U1; 10 rows of 10"),
        (PAIRED | {"noise_pairs": "3:3"}, "3:3; pairs"),
        (PAIRED | {"noise_pairs": "3-4"}, "3-4; pairs"),
        (PAIRED | {"noise_rate": 1.0, "noise_pairs": "3:4"}, "is left of 3"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(keys, words, tmp_path):
    high = np.arange(1197) % 12
    half = np.full(1197, 0.5)
    file = tmp_path / "a.npz"
    np.savez(
        file, long=np.arange(5), high=high, half=half, rows=np.full((10, 10), 0.2),
        complex=high * 1j, words=np.full((10, 10), "a"),
    )  # fmt: skip
    (tmp_path / "t.csv").write_text("image,label\n0,1\n")
    keys = {
        k: v.format(f=file, t=tmp_path / "t.csv") if isinstance(v, str) else v
        for k, v in keys.items()
    }
    with pytest.raises(BadInput, match=words):
        load({"name": "digits", **keys})


@pytest.mark.parametrize(
    ("stated", "order", "words"),
    [
        (np.arange(5), np.arange(30), r"its clean_label is an array \[5\]; one label of each of"),
        (np.array(3), np.array(3), r"its clean_label is an array \[\]"),
        (np.zeros((30, 2)), np.arange(30), r"its clean_label is an array \[30, 2\]"),
        (np.arange(30)[::-1] % 10, np.arange(30)[::-1] * 1.0, "differs .* in 100.0% of the rows"),
        (np.arange(30)[::-1] % 10, np.arange(5), "differs .* in 100.0% of the rows"),
    ],
)
def test_a_clean_label_of_another_form_is_refused(stated, order, words, tmp_path):
    clean = np.arange(30, dtype=np.int32) % 10
    np.savez(tmp_path / "a.npz", y=clean, clean_label=stated, image_order_tfds=order)
    with pytest.raises(BadInput, match=f"^config.data.labels: .*{words}"):
        label_noise.labels(asked(labels=f"{tmp_path / 'a.npz'}:y"), clean, 10, ["a"] * 10)


def test_pickles_and_damaged_files_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "c.csv").write_text("1\n2\nx\n")
    for name in ("a.npy", "b.npz", "c.csv"):
        with pytest.raises(BadInput, match=f"config.data.labels: .*{name}: "):
            load({"name": "digits", "labels": str(tmp_path / name)})


def test_a_run_states_the_share_of_wrong_labels(tmp_path, capsys):
    words = ["--config=random:digits,ipc=2", "--config.data.noise=symmetric"]
    words += ["--config.data.noise_rate=0.4", f"--workdir={tmp_path / 'run'}", "--config.nets=MLP"]
    words += ["--config.net.name=MLP", "--config.eval.epochs=2", "--config.eval.n=1"]
    words += ["--config.baselines.full=false"]
    assert main(words) == 0
    shown = capsys.readouterr()
    made = DistilledSet.load(tmp_path / "run/distilled.npz")
    data = load({"name": "digits", "noise": "symmetric", "noise_rate": 0.4})
    rows = made.recipe["selected"]
    wrong = int((data.train.labels[rows] != data.clean[rows]).sum())
    assert f"{wrong} of 20 labels of the chosen images are wrong" in shown.out + shown.err
    assert made.recipe["data"]["noise"] == "symmetric" and made.recipe["wrong_labels"] == {
        "count": wrong,
        "of": 20,
    }
    pairs = ["--config=random_pairs:digits_captions", "--config.data.noise=symmetric"]
    assert main([*pairs, f"--workdir={tmp_path / 'pairs'}"]) == 2
    assert "config.data.noise: symmetric with pairs; none" in capsys.readouterr().err
