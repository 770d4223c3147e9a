"""Other people's sets come in, ours go out, and no file runs code."""

from __future__ import annotations

import io
import json
import os
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

import jdd
from jdd import interop
from jdd.data.catalogue import CATALOGUE
from jdd.errors import BadInput
from jdd.product import preview
from jdd.stages import validation
from tests.tiny_distilled import NAMES, make

OWN = ("method", "dataset", "class_names", "train", "augment", "net", "whitening", "ipc")


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".pt"])
@pytest.mark.parametrize(
    "kind, zca, lr", [("hard", True, 0.02), ("hard", "kip", 0.02), ("probabilities", False, None)]
)
def test_exports_come_back_bit_equal(tmp_path, suffix, kind, zca, lr):
    pytest.importorskip({".pt": "torch", ".safetensors": "safetensors"}.get(suffix, "numpy"))
    before = make(kind=kind, zca=zca, lr=lr)
    after = interop.load(interop.export(before, tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(after.images, before.images)
    np.testing.assert_array_equal(after.labels, before.labels.astype(after.labels.dtype))
    assert (after.lr, after.label_kind, after.class_names) == (lr, kind, NAMES)
    if zca:
        np.testing.assert_array_equal(after.transform.zca_matrix, before.transform.zca_matrix)
        assert after.transform.kind == before.transform.kind
        pixels = before.transform.inverse(before.images)
        np.testing.assert_allclose(after.transform.forward(pixels), before.images, atol=1e-4)
    else:
        np.testing.assert_array_equal(after.transform.mean, before.transform.mean)


@pytest.mark.parametrize("kind, zca", [("hard", True), ("probabilities", False)])
def test_png_folder_comes_back_to_half_a_grey_level(tmp_path, kind, zca):
    before = make(kind=kind, zca=zca)
    path = interop.export(before, tmp_path / "images")
    assert (path / "1_bee_wasp" / "0001.png").exists() and (path / "recipe.json").exists()
    known = {"transform": before.transform} if zca else {}
    after = interop.load(path, **known)
    np.testing.assert_array_equal(preview.to_pixels(after), preview.to_pixels(before))
    pixels = [s.transform.inverse(s.images) for s in (before, after)]
    np.testing.assert_allclose(*pixels, atol=0.5 / 255 + 1e-4)
    np.testing.assert_allclose(after.labels, before.labels, atol=1e-6)
    assert (after.lr, after.label_kind) == (before.lr, kind)
    assert {k: after.recipe[k] for k in OWN} == json.loads(
        json.dumps({k: before.recipe[k] for k in OWN})
    )
    with pytest.raises(BadInput, match="exists already"):
        interop.export(before, path)
    if zca:
        with pytest.raises(BadInput, match="whitened"):
            interop.load(path)
    (path / "1_bee_wasp" / "0001.png").unlink()
    with pytest.raises(BadInput, match="disagree about 1_bee_wasp/0001.png"):
        interop.load(path, **known)


def test_pt_export_is_what_torch_users_expect(tmp_path):
    torch = pytest.importorskip("torch")
    ours = make(zca=True)
    theirs = torch.load(interop.export(ours, tmp_path / "a.pt"), weights_only=True)
    assert theirs["images"].shape == (6, 3, 4, 4) and theirs["images"].dtype == torch.float32
    assert theirs["labels"].dtype == torch.int64 and theirs["lr"] == 0.0213
    assert json.loads(theirs["recipe"])["dataset"] == "insects"
    # The whitening is in the images' own order: whitening pixels gives the images.
    pixels = torch.from_numpy(ours.transform.inverse(ours.images)).permute(0, 3, 1, 2)
    flat = pixels.reshape(6, -1) - theirs["zca_mean"]
    white = (flat @ theirs["zca_matrix"]).reshape(6, 3, 4, 4)
    torch.testing.assert_close(white, theirs["images"], atol=1e-4, rtol=1e-4)


def _tensors(torch, n=20, size=32):
    return torch.randn(n, 3, size, size), torch.arange(10).repeat_interleave(n // 10)


def test_mtt_release_with_labels_and_rate_beside_it(tmp_path):
    torch = pytest.importorskip("torch")
    images, labels = _tensors(torch)
    torch.save(images, tmp_path / "images_best.pt")
    torch.save(labels, tmp_path / "labels_best.pt")
    torch.save(torch.tensor(0.0203), tmp_path / "lr.pt")
    for path in (tmp_path, tmp_path / "images_best.pt"):
        found = interop.load(path, dataset="cifar10", method="mtt")
        np.testing.assert_array_equal(found.images, images.permute(0, 2, 3, 1).numpy())
        np.testing.assert_array_equal(found.labels, labels.numpy())
        assert found.lr == pytest.approx(0.0203) and found.recipe["ipc"] == 2
        assert found.class_names == CATALOGUE["cifar10"].class_names
        assert found.recipe["train"]["lr"] == pytest.approx(0.0203)
        assert found.recipe["augment"] == {
            "name": "dsa",
            "strategy": CATALOGUE["cifar10"].dsa,
            "align_corners": True,
        }
        np.testing.assert_allclose(found.transform.mean, CATALOGUE["cifar10"].mean, rtol=1e-6)
    other = interop.load(
        tmp_path, dataset="cifar10", lr=0.5, epochs=300, dsa="none", net="MLP", batch=64
    )
    train = other.recipe["train"]
    assert (train["lr"], train["epochs"], train["passes"], train["batch"]) == (0.5, 300, 301, 64)
    assert train["drop"]["after_epoch"] == 151 and other.recipe["net"]["name"] == "MLP"
    assert other.recipe["augment"]["name"] == "none"
    with pytest.raises(BadInput, match="which dataset"):
        interop.load(tmp_path)
    with pytest.raises(BadInput, match="whitened"):
        interop.load(tmp_path, dataset="cifar10", zca=True)
    with pytest.raises(BadInput, match=r"\[28, 28, 1\]"):
        interop.load(tmp_path, dataset="mnist")
    with pytest.raises(BadInput, match="did you mean dataset"):
        interop.load(tmp_path, datset="cifar10")


def test_whitened_release_and_its_pictures(tmp_path):
    torch = pytest.importorskip("torch")
    ours = make(zca=True)
    nchw = torch.from_numpy(ours.images).permute(0, 3, 1, 2)
    pixels = torch.from_numpy(ours.transform.inverse(ours.images)).permute(0, 3, 1, 2)
    torch.save(nchw, tmp_path / "images_5.pt")
    torch.save(pixels, tmp_path / "images_zca_5.pt")
    known = {"dataset": "insects", "class_names": NAMES, "transform": ours.transform}
    for name in ("images_5.pt", "images_zca_5.pt"):
        found = interop.load(tmp_path / name, zca=True, **known)
        np.testing.assert_allclose(found.images, ours.images, atol=1e-4)
        assert found.recipe["whitening"].startswith("kornia_zca")
        np.testing.assert_array_equal(found.labels, [0, 0, 1, 1, 2, 2])  # no labels: class by class
    cycle = interop.load(tmp_path / "images_5.pt", label_order="cycle", **known)
    np.testing.assert_array_equal(cycle.labels, [0, 1, 2, 0, 1, 2])


def test_dc_results_with_several_runs_and_numpy_accuracies(tmp_path):
    torch = pytest.importorskip("torch")
    runs = [list(_tensors(torch)) for _ in range(2)]
    path = tmp_path / "res_DSA_CIFAR10_ConvNet_2ipc.pt"
    accuracies = {"ConvNet": [np.float64(0.52), np.float64(0.53)]}
    torch.save({"data": runs, "accs_all_exps": accuracies}, path)
    for item in (0, 1):
        found = interop.load(path, dataset="cifar10", item=item)
        np.testing.assert_array_equal(found.images, runs[item][0].permute(0, 2, 3, 1).numpy())
    assert found.lr is None and found.recipe["train"]["lr"] == 0.01
    assert found.recipe["augment"]["align_corners"] is False
    with pytest.raises(BadInput, match="items 0 to 1"):
        interop.load(path, dataset="cifar10", item=2)


def test_soft_labels_are_told_apart(tmp_path):
    torch = pytest.importorskip("torch")
    images, labels = _tensors(torch)
    soft = torch.nn.functional.one_hot(labels, 10).float()
    for values, kind in ((soft, "probabilities"), (soft * 7 - 3, "logits")):
        torch.save([images, values], tmp_path / "data.pt")
        assert interop.load(tmp_path / "data.pt", dataset="cifar10").label_kind == kind
    found = interop.load(tmp_path / "data.pt", dataset="cifar10", label_kind="centred")
    assert found.label_kind == "centred"


class _Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_pt_files_run_no_code_and_damage_is_one_line(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save({"images": torch.zeros(1, 3, 2, 2), "x": _Evil()}, tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="weights_only refuses"):
        interop.load(tmp_path / "evil.pt", dataset="cifar10")
    assert not (tmp_path / "hacked").exists()
    torch.save(torch.zeros(4, 3, 32, 32), tmp_path / "a.pt")
    whole = (tmp_path / "a.pt").read_bytes()
    for content in (b"", b"garbage" * 30, whole[: len(whole) // 2]):
        (tmp_path / "b.pt").write_bytes(content)
        with pytest.raises(BadInput, match="not a whole PyTorch file") as error:
            interop.load(tmp_path / "b.pt", dataset="cifar10")
        assert "\n" not in str(error.value)
    torch.save(torch.zeros(4), tmp_path / "lr.pt")
    with pytest.raises(BadInput, match="shape"):
        interop.load(tmp_path / "lr.pt", dataset="cifar10")
    (tmp_path / "lr.pt").unlink()
    with pytest.raises(BadInput, match="not the same number for each of 10"):
        interop.load(tmp_path / "a.pt", dataset="cifar10")


def test_damaged_safetensors_are_refused(tmp_path):
    pytest.importorskip("safetensors")
    path = interop.export(make(), tmp_path / "a.safetensors")
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"x" * 100):
        path.write_bytes(content)
        with pytest.raises(BadInput, match="safetensors"):
            interop.load(path)


def test_tensors_in_pixel_space_are_checked_too(tmp_path):
    torch = pytest.importorskip("torch")
    known = {"dataset": "cifar10", "space": "pixels"}
    torch.save(torch.full((10, 3, 32, 32), 300.5), tmp_path / "images.pt")
    with pytest.raises(BadInput, match="images.pt: .*from 300.5 to 300.5, given as pixels"):
        interop.load(tmp_path / "images.pt", **known)
    torch.save(torch.full((10, 3, 32, 32), 1.2), tmp_path / "images.pt")  # learned pixels may
    found = interop.load(tmp_path / "images.pt", **known)
    np.testing.assert_allclose(found.transform.inverse(found.images), 1.2, atol=1e-6)
    soft = torch.eye(10) * (1 + 1e-8) - 1e-9
    torch.save([torch.zeros(10, 3, 32, 32), soft], tmp_path / "pair.pt")
    found = interop.load(tmp_path / "pair.pt", dataset="cifar10")
    assert found.label_kind == "probabilities" and found.labels.min() == 0


def _png(value: int, size: int = 4) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), (value, 0, 0)).save(out, "PNG")
    return out.getvalue()


def _zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_class_folders_in_a_zip(tmp_path):
    members = {f"set/{name}/{i}.png": _png(40 * i) for name in ("crow", "ant") for i in range(2)}
    members |= {"set/bee_wasp/0.png": _png(7), "set/bee_wasp/1.png": _png(8), "set/read.me": b"hi"}
    path = _zip(tmp_path / "a.zip", members)
    known = {"dataset": "insects", "transform": make().transform}
    found = interop.load(path, class_names=NAMES, **known)
    np.testing.assert_array_equal(found.labels, [0, 0, 1, 1, 2, 2])
    reds = (found.transform.inverse(found.images)[:, 0, 0, 0] * 255).round()
    np.testing.assert_array_equal(reds, [0, 40, 7, 8, 0, 40])
    assert interop.load(path, **known).class_names == ("ant", "bee_wasp", "crow")
    with pytest.raises(BadInput, match="class folder"):
        interop.load(path, class_names=("ant", "bee", "crow", "dog"), **known)


@pytest.mark.parametrize(
    "members, words",
    [
        ({"read.me": b"hi", "x.png": _png(1)}, "no images in class folders"),
        ({"a/x.png": b"", "b/y.png": b""}, "x.png"),
        ({"a/x.png": _png(1)[:40], "b/y.png": _png(1)}, "x.png"),
        ({"a/x.png": _png(1), "b/y.png": _png(1, 5)}, "different sizes"),
        ({"../x.png": _png(1)}, "x.png"),
        ({"a/x.png": _png(1), "b/c/y.png": _png(1)}, "depths"),
        ({"a/x.png": _png(1), "b/y.png": _png(1), "recipe.json": b"{"}, "recipe.json"),
    ],
)
def test_bad_image_archives_are_refused(tmp_path, members, words):
    path = _zip(tmp_path / "a.zip", members)
    with pytest.raises(BadInput, match=words):
        interop.load(path, dataset="insects", transform=make().transform)


def test_a_jdd_set_keeps_what_it_knows_and_takes_a_new_recipe(tmp_path):
    path = make().save(tmp_path / "a.npz")
    found = interop.load(path, lr=0.5, dataset="insects", zca=False)
    assert found.recipe["train"]["lr"] == found.lr == 0.5
    for known in ({"dataset": "cifar10"}, {"zca": True}, {"space": "pixels"}):
        with pytest.raises(BadInput, match="leave out"):
            interop.load(path, **known)


def test_unknown_files_and_formats_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("1")
    for path, words in ((tmp_path / "a.csv", "a .csv file"), (tmp_path / "b.pt", "no such file")):
        with pytest.raises(BadInput, match=words):
            interop.load(path, dataset="cifar10")
    with pytest.raises(BadInput, match="one of npz, png"):
        interop.export(make(), tmp_path / "a.h5")


@pytest.mark.parametrize("kind", ["hard", "logits", "probabilities"])
def test_ddranking_folder_is_what_its_demos_read(tmp_path, kind):
    torch = pytest.importorskip("torch")
    ours = make(kind=kind, zca=True)
    if kind == "logits":
        ours = ours._replace(labels=7 * ours.labels)
    if kind == "hard":  # not class after class: the package numbers them so
        order = np.array([4, 0, 2, 5, 1, 3])
        ours = ours._replace(images=ours.images[order], labels=ours.labels[order])
    path = interop.export(ours, tmp_path / "x", "ddranking")
    images, labels, lr = (torch.load(path / f"{n}.pt") for n in ("images", "labels", "lr"))
    assert images.shape == (6, 3, 4, 4) and images.dtype == torch.float32
    assert lr.item() == pytest.approx(0.0213)
    sorted_images = ours.images[np.argsort(ours.classes_of_images, kind="stable")]
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), sorted_images)
    if kind == "hard":
        assert labels.dtype == torch.int64 and labels.tolist() == [0, 0, 1, 1, 2, 2]
    else:
        wanted = torch.from_numpy(ours.labels).float()
        found = labels if kind == "logits" else labels.softmax(1)
        torch.testing.assert_close(found, wanted)
    assert json.loads((path / "recipe.json").read_text())["label_kind"] == kind
    # A release like any other: jdd reads it back.
    known = {"dataset": "insects", "class_names": NAMES, "transform": ours.transform, "zca": True}
    back = interop.load(path, **known)
    np.testing.assert_array_equal(back.images, sorted_images)
    assert back.label_kind == ("hard" if kind == "hard" else "logits")
    with pytest.raises(BadInput, match="exists already"):
        interop.export(ours, path, "ddranking")


def test_ddranking_refuses_what_it_has_no_place_for(tmp_path):
    pytest.importorskip("torch")
    ours = make()
    train = ours.recipe["train"] | {"lr": [0.1, 0.2]}
    lame = ours._replace(images=ours.images[:5], labels=ours.labels[:5])
    for bad, words in (
        (ours._replace(recipe=ours.recipe | {"train": train}), "2 learning rates, one a step"),
        (make(kind="centred"), "centred labels"),
        (make(zca="kip"), "KIP's whitening"),
        (lame, "1 to 2 images of a class"),
    ):
        with pytest.raises(BadInput, match=words) as error:
            interop.export(bad, tmp_path / "x", "ddranking")
        assert "\n" not in str(error.value) and not (tmp_path / "x").exists()


def test_labels_guessed_from_the_count_are_said_and_not_beside_other_parts(tmp_path):
    """One of five parts of 10 classes x 50 images could be read as 10 classes of 10."""
    torch = pytest.importorskip("torch")
    images, labels = _tensors(torch)
    torch.save(images, tmp_path / "images_part0.pt")
    found = interop.load(tmp_path / "images_part0.pt", dataset="cifar10")
    assert found.notes == ("no labels with 20 images: taken as 10 classes of 2, one by one",)
    with pytest.warns(UserWarning, match="taken as 10 classes of 2"):
        jdd.load(tmp_path / "images_part0.pt", dataset="cifar10")
    torch.save(images, tmp_path / "images_part1.pt")
    with pytest.raises(BadInput, match="images_part1.pt next to it may be other parts"):
        interop.load(tmp_path / "images_part0.pt", dataset="cifar10")
    ordered = interop.load(tmp_path / "images_part0.pt", dataset="cifar10", label_order="class")
    assert (
        not any("taken as" in note for note in ordered.notes)
        and ordered.labels.tolist() == labels.tolist()
    )
    torch.save(labels, tmp_path / "labels_part0.pt")  # the remedy that the message names
    assert interop.load(tmp_path / "images_part0.pt", dataset="cifar10").notes == ()


def test_a_folder_export_without_its_recipe_keeps_colliding_classes_apart(tmp_path):
    names = ("crane", "a b", "a_b", "crane ")
    before = make(names=names)
    path = interop.export(before, tmp_path / "images")
    (path / "recipe.json").unlink()
    known = {"dataset": "insects", "transform": before.transform}
    for found in (interop.load(path, **known), interop.load(path, **known, class_names=names)):
        np.testing.assert_array_equal(found.labels, before.labels)
        np.testing.assert_array_equal(preview.to_pixels(found), preview.to_pixels(before))
    assert interop.load(path, **known).class_names == ("0_crane", "1_a_b", "2_a_b", "3_crane_")
    assert not interop.load(path, **known).named


def test_a_set_without_a_class_is_refused():
    whole = make()
    data = types.SimpleNamespace(
        shape=whole.images.shape[1:], classes=3, transform=whole.transform, name="insects",
        class_names=whole.class_names,
    )  # fmt: skip
    assert validation.validate_data(whole, data) == ()
    with pytest.raises(BadInput, match="no images of crow; one of each class of insects"):
        validation.validate_data(
            whole._replace(images=whole.images[:4], labels=whole.labels[:4]), data
        )
