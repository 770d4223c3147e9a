"""A set for PyTorch: images, labels, augmentation, stored views and soft labels of each epoch.

Without PyTorch a stand-in shows that the arrays are right; ``test_a_loader...`` needs PyTorch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jdd
from jdd import rng
from jdd.augment import views
from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet, merge
from jdd.soft_labels.store import LabelStore, digest
from tests import tiny_distilled


def stand_in() -> dict[str, types.ModuleType]:
    torch, utils, data = (types.ModuleType(n) for n in ("torch", "torch.utils", "torch.utils.data"))
    torch.from_numpy, torch.tensor = np.asarray, np.asarray  # type: ignore[attr-defined]
    data.Dataset = type("Dataset", (), {})  # type: ignore[attr-defined]
    return {"torch": torch, "torch.utils": utils, "torch.utils.data": data}


@pytest.fixture(autouse=True)
def torch(monkeypatch: pytest.MonkeyPatch) -> Any:
    """PyTorch, or a stand-in where it is missing."""
    if importlib.util.find_spec("torch") is None:
        for name, module in stand_in().items():
            monkeypatch.setitem(sys.modules, name, module)
    return importlib.import_module("torch.utils.data")


def changed(dset: DistilledSet, **recipe: Any) -> DistilledSet:
    return dset.with_recipe(merge(dset.recipe, recipe))


def test_items_are_the_images_in_the_nets_space_and_their_labels(torch: Any) -> None:
    dset = tiny_distilled.make()
    data = jdd.torch_dataset(dset)
    assert isinstance(data, torch.Dataset) and len(data) == 6 and data.shuffle
    for i in range(6):
        image, label = data[i]
        np.testing.assert_array_equal(np.asarray(image), dset.images[i].transpose(2, 0, 1))
        assert int(label) == dset.labels[i]
    assert int(data[-1][1]) == dset.labels[-1]
    with pytest.raises(IndexError):
        data[6]
    soft = tiny_distilled.make(kind="probabilities", lr=None)
    data = jdd.torch_dataset(soft)
    assert data.label_kind == "probabilities"
    np.testing.assert_array_equal(np.asarray(data[4][1]), soft.labels[4].astype(np.float32))


def test_weights_of_images_are_factors_of_their_labels() -> None:
    dset = tiny_distilled.make()
    weights = np.arange(6, dtype=np.float32)
    data = jdd.torch_dataset(dset._replace(weights=weights))
    assert data.label_kind == "probabilities"
    for i in range(6):
        wanted = np.eye(3)[dset.labels[i]] * weights[i] / weights.mean()
        np.testing.assert_allclose(np.asarray(data[i][1]), wanted, rtol=1e-6)


def test_every_epoch_draws_the_augmentation_of_the_recipe_anew() -> None:
    dset = tiny_distilled.make(shape=(8, 8, 3))
    dset = changed(dset, augment={"name": "dsa", "strategy": "scale_rotate_crop"})
    data = jdd.torch_dataset(dset, seed=3)
    first = np.stack([np.asarray(data[i][0]) for i in range(6)])
    data.set_epoch(1)
    second = np.stack([np.asarray(data[i][0]) for i in range(6)])
    again = jdd.torch_dataset(dset, seed=3)
    assert not np.array_equal(first, second) and not np.array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[2], np.asarray(again[2][0]))
    plain = jdd.torch_dataset(dset, augment=False)
    np.testing.assert_array_equal(np.asarray(plain[1][0]), dset.images[1].transpose(2, 0, 1))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A run's folder with a set of stored labels: two epochs of two steps of four views."""
    dset = tiny_distilled.make(shape=(8, 8, 3), kind="hard")
    train = {"order": "stored", "batch": 4, "epochs": 2, "passes": 2, "loss": "kl"}
    labels = {"kind": "stored", "store": "labels/set", "form": "logits", "mode": "views"}
    labels["teachers"] = []
    dset = changed(dset, train=train, labels=labels)
    dset.save(tmp_path / "distilled.npz")
    (tmp_path / "config.json").write_text("{}")
    dset = DistilledSet.load(tmp_path / "distilled.npz")
    settings = {"classes": 3, "form": "logits", "mode": "views", "images": digest(dset.images)}
    store = LabelStore(tmp_path / "labels/set", settings)
    store.create()
    draw = np.random.default_rng(0)
    for epoch in range(2):
        spec = views.Spec(crop="resized", mix="cutmix")
        shown = [views.draw(rng.key(epoch, "t", s), 4, (8, 8, 3), spec) for s in range(2)]
        packed = [views.pack(view) for view in shown]
        stacked = {name: np.stack([p[name] for p in packed]) for name in packed[0]}
        index = np.array([[0, 1, 2, 3], [4, 5, -1, -1]])
        store.write(epoch, index, stacked, draw.normal(size=(2, 4, 3)).astype(np.float32))
    return tmp_path


def test_stored_views_and_soft_labels_come_epoch_by_epoch(stored: Path) -> None:
    dset, store = (
        DistilledSet.load(stored / "distilled.npz"),
        LabelStore.open(stored / "labels/set"),
    )
    data = jdd.torch_dataset(stored)
    assert (len(data), data.batch, data.epochs, data.shuffle) == (6, 4, 2, False)
    assert data.label_kind == "logits"
    for epoch in (1, 0):
        data.set_epoch(epoch)
        index, packed, labels = store.read(epoch)
        view = views.unpack({name: a[0] for name, a in packed.items()})
        shown = jax.jit(views.apply)(dset.images[index[0]], view)
        for i in range(4):
            image, label = data[i]
            theirs = np.asarray(image).transpose(1, 2, 0)
            np.testing.assert_allclose(theirs, shown[i], atol=1e-5)
            np.testing.assert_array_equal(np.asarray(label), labels["logits"][0, i])
    with pytest.raises(BadInput, match="0 to 1"):
        data.set_epoch(2)


def test_refusals_are_one_line(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dset = jdd.load(stored)
    with pytest.raises(BadInput, match="its path"):
        jdd.torch_dataset(dset)
    other = dset._replace(images=dset.images + 1)
    other.save(stored / "distilled.npz")
    with pytest.raises(BadInput, match="other images"):
        jdd.torch_dataset(stored)
    real = importlib.import_module

    def missing(name: str, *rest: Any) -> Any:
        if name.startswith("torch"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(BadInput, match=r"jdd\[torch\]"):
        jdd.torch_dataset(tiny_distilled.make())


def test_a_loader_makes_batches_to_train_on(stored: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch.optim")
    for data in (jdd.torch_dataset(stored), jdd.torch_dataset(tiny_distilled.make())):
        loader = torch.utils.data.DataLoader(data, batch_size=data.batch, shuffle=data.shuffle)
        batches = list(loader)
        assert sum(len(x) for x, _ in batches) == 6 and batches[0][0].dtype == torch.float32
        net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(3))
        target = batches[0][1] if data.label_kind == "hard" else batches[0][1].softmax(1)
        torch.nn.functional.cross_entropy(net(batches[0][0]), target).backward()
