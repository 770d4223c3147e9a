"""The product: what is saved is what is loaded, plain arrays, and nothing foreign gets in."""

from __future__ import annotations

import base64
import io
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jdd
from jdd.data.whitening_fit import left_out
from jdd.errors import BadInput, StorageError
from jdd.product import distilled_set, preview
from jdd.product.distilled_set import DistilledSet
from tests.tiny_distilled import NAMES, make


@pytest.mark.parametrize("kind", ["hard", "probabilities", "logits", "centred"])
@pytest.mark.parametrize("zca", ["none", "kornia", "kip", "frepo"])
def test_load_returns_what_was_saved(tmp_path, kind, zca):
    saved = make(kind=kind, zca=zca, lr=None if kind == "logits" else 0.1)
    found = DistilledSet.load(saved.save(tmp_path / "a.npz"))
    np.testing.assert_array_equal(found.images, saved.images)
    np.testing.assert_array_equal(found.labels, saved.labels.astype(found.labels.dtype))
    assert found.labels.dtype == (np.int32 if kind == "hard" else np.float32)
    assert (found.label_kind, found.lr) == (kind, saved.lr)
    assert found.class_names == NAMES and found.recipe["train"]["lr"] == 0.0213
    assert found.transform.kind == zca and found.transform.whitens == (zca != "none")
    pixels = found.transform.inverse(found.images)
    np.testing.assert_allclose(pixels, saved.transform.inverse(saved.images), atol=1e-5)
    assert list(found.classes_of_images) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("zca", ["kornia", "kip", "frepo"])
def test_a_whitening_that_is_left_out_is_fitted_again(tmp_path, zca):
    whole = make(zca=zca)
    bare = whole._replace(transform=left_out(zca, whole.images.shape[1:], whole.transform))
    path = bare.save(tmp_path / "a.npz")
    with np.load(path) as z:
        assert not [name for name in z if name.startswith("zca")] and z["schema_version"] == 3
    found = DistilledSet.load(path)
    assert found.save(tmp_path / "b.npz").read_bytes() == path.read_bytes()
    np.testing.assert_array_equal(found.images, whole.images)
    assert found.transform.kind == zca and f"{zca} whitening (left out)" in repr(found)
    assert "no image" in found._repr_html_() and "<img" not in found._repr_html_()
    for refused in (found.transform.forward, found.transform.inverse):
        with pytest.raises(BadInput, match="left out of its file; fit it to the real images"):
            refused(found.images)
    draw = np.random.default_rng(0)
    draw.uniform(size=whole.images.shape)
    real = draw.uniform(0, 1, (200, *whole.images.shape[1:])).astype(np.float32)  # as in ``make``
    again = found.fitted(real).transform
    assert again.kind == zca
    np.testing.assert_array_equal(again.zca_matrix, whole.transform.zca_matrix)
    np.testing.assert_array_equal(again.forward(real), whole.transform.forward(real))


def test_the_file_is_read_with_numpy_alone(tmp_path):
    path = make(zca=True).save(tmp_path / "a.npz")
    with np.load(path, allow_pickle=False) as z:
        assert z["images"].shape == (6, 4, 4, 3) and z["images"].dtype == np.float32
        assert z["labels"].dtype == np.int32 and str(z["label_kind"]) == "hard"
        assert z["zca_matrix"].shape == (48, 48) and z["zca_mean"].shape == (48,)
        assert z["mean"].shape == z["std"].shape == (3,) and float(z["lr"]) == 0.0213
        assert json.loads(str(z["recipe"]))["class_names"] == list(NAMES)


def test_the_same_set_gives_the_same_bytes(tmp_path):
    one, two = (make().save(tmp_path / name).read_bytes() for name in ("a.npz", "b.npz"))
    assert one == two


def test_saving_leaves_nothing_half_done(tmp_path, monkeypatch):
    path = make().save(tmp_path / "a.npz")
    before = path.read_bytes()

    def torn(file, **arrays):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", torn)
    with pytest.raises(StorageError, match="No space left"):
        make(ipc=3).save(path)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.npz"]


def test_an_unwritable_place_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match="cannot be written"):
        make().save(tmp_path / "absent" / "a.npz")


def _pickled(path):
    np.savez(path, images=np.zeros(1), labels=np.asarray([{}], object))
    return path


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "empty"),
        (b"no zip at all", "not an .npz"),
        (pickle.dumps({"images": 1}), "not an .npz"),
        (b"PK\x03\x04 cut", "truncated or damaged"),
    ],
)
def test_foreign_files_are_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words) as error:
        DistilledSet.load(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    assert error.value.exit_code == 2


def test_pickled_and_truncated_and_missing_files_are_refused(tmp_path):
    with pytest.raises(BadInput, match="pickled"):
        DistilledSet.load(_pickled(tmp_path / "p.npz"))
    path = make().save(tmp_path / "a.npz")
    whole = path.read_bytes()
    for size in (len(whole) // 4, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:size])
        with pytest.raises(BadInput, match="truncated"):
            DistilledSet.load(path)
    flipped = bytearray(whole)
    flipped[300] ^= 255  # inside the first array's data or header: the zip's checksum sees it
    path.write_bytes(bytes(flipped))
    with pytest.raises(BadInput):
        DistilledSet.load(path)
    with pytest.raises(BadInput, match="cannot be read"):
        DistilledSet.load(tmp_path / "absent.npz")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(BadInput, match="no array images, labels"):
        DistilledSet.load(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "change, words",
    [
        ({"images": np.full((6, 4, 4, 3), np.nan, np.float32)}, "NaN"),
        ({"images": np.zeros((6, 4, 4), np.float32)}, "shape"),
        ({"images": np.zeros((6, 4, 4, 3), np.uint8)}, "uint8"),
        ({"labels": np.asarray([0, 0, 1, 1, 2, 3], np.int32)}, "0 to 2"),
        ({"labels": np.asarray([-1, 0, 1, 1, 2, 2], np.int32)}, "-1"),
        ({"labels": np.zeros(5, np.int32)}, r"\[6\]"),
        ({"labels": np.zeros(6, np.float32)}, "whole numbers"),
        ({"label_kind": np.asarray("soft")}, "hard, probabilities"),
        ({"label_kind": np.asarray("logits")}, r"\[6, 3\]"),
        ({"recipe": np.asarray("{")}, "not JSON"),
        ({"recipe": np.asarray("[]")}, "no object but list"),
        ({"recipe": np.asarray('{"train": 3}')}, "recipe.train"),
        ({"lr": np.asarray([0.1, 0.2])}, "lr is not one number"),
        ({"lr": np.asarray(np.inf)}, "finite"),
        ({"mean": np.zeros(2, np.float32)}, "mean"),
        (
            {"zca_mean": np.zeros(48), "zca_matrix": np.eye(48), "zca_image": np.zeros(3)},
            "zca_image",
        ),
        ({"zca_mean": np.zeros(48), "zca_matrix": np.zeros((4, 4))}, "whitening"),
        ({"zca_mean": np.zeros(48), "zca_matrix": np.full((48, 48), np.nan)}, "zca_matrix holds"),
        ({"zca_mean": np.zeros(48)}, "half of a whitening"),
        ({"std": np.zeros(3)}, "std above 0"),
        ({"std": np.asarray(["a", "b", "c"])}, "std is no list of numbers"),
        ({"lr": np.asarray(0.0)}, "above 0"),
        ({"lr": np.asarray(-0.01)}, "above 0"),
        ({"schema_version": np.asarray(99)}, "newer"),
    ],
)
def test_arrays_that_contradict_each_other_are_refused(change, words):
    arrays = distilled_set.to_arrays(make()) | change
    with pytest.raises(BadInput, match=words):
        distilled_set.from_arrays(arrays, "a.npz")


def test_recipe_sections_are_merged_and_the_default_stays_as_it_is():
    one = distilled_set.make_recipe(train={"lr": 0.5}, augment={"name": "dsa"})
    assert one["train"]["lr"] == 0.5 and one["train"]["momentum"] == 0.9
    one["train"]["drop"]["factor"] = 7
    assert distilled_set.RECIPE["train"]["lr"] == 0.01
    assert distilled_set.RECIPE["train"]["drop"]["factor"] == 0.1


def test_its_repr_is_two_lines_and_a_notebook_shows_its_images() -> None:
    dset = make(names=("ant", '<b>"bee"</b>', "crow"))
    assert repr(dset).splitlines() == [
        "DistilledSet of insects by mtt: 6 images of 4x4x3, 3 classes",
        "  hard labels, learned rate 0.0213, no whitening, net ConvNet",
    ]
    bare = dset._replace(recipe={})  # made by hand
    assert (
        "an unnamed dataset by no method named" in repr(bare) and "<img" not in bare._repr_html_()
    )
    text = dset._repr_html_()
    assert "<b>" not in text and "&lt;b&gt;&quot;bee&quot;" in text
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', text)
    row = np.asarray(Image.open(io.BytesIO(base64.b64decode(images[1]))))
    expected = preview.to_pixels(dset)[dset.labels == 1]
    np.testing.assert_array_equal(row, np.concatenate(list(expected), axis=1))
    many = make(ipc=12, names=tuple(map(str, range(30))))._repr_html_()
    assert many.count("<img") == 20
    assert "20 of 30 classes, at most 10 images of each" in many
    assert jdd.DistilledSet is DistilledSet


def test_types_ship_with_the_package() -> None:
    assert (Path(jdd.__file__).parent / "py.typed").exists()
