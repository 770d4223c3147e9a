"""Datasets of Hugging Face: saved folders and Parquet, as the package writes them; the hub."""

from __future__ import annotations

import importlib
import json
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import jdd
from jdd.data import load
from jdd.errors import BadInput
from jdd.interop import huggingface_folder
from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from tests import tiny_distilled
from tests.data.tiny_sets import encode, pixels, refused

pa = pytest.importorskip("pyarrow")
pq = importlib.import_module("pyarrow.parquet")
NAMES = ["ant", "bee"]


def table(first: int, count: int, metadata: bool = True, labels: Any = None) -> Any:
    """A table as ``datasets`` writes it: encoded images, integer labels, features as metadata."""
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = [{"bytes": encode(pixels(i)), "path": None} for i in range(first, first + count)]
    labels = [i % 2 for i in range(first, first + count)] if labels is None else labels
    made = pa.table({"image": pa.array(cells, type=kind), "label": labels})
    features = {"image": {"_type": "Image"}, "label": {"names": NAMES, "_type": "ClassLabel"}}
    about = json.dumps({"info": {"features": features}})
    return made.replace_schema_metadata({"huggingface": about}) if metadata else made


def saved(folder: Path, rows: Any) -> Path:
    """Write a split as ``save_to_disk`` does."""
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / "data-00000-of-00001.arrow"), rows.schema) as out:
        out.write_table(rows)
    state = {"_data_files": [{"filename": "data-00000-of-00001.arrow"}], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def whole(data: Any, first: int = 0) -> None:
    """Every image has its label, train and test are those of the splits."""
    assert data.class_names == ("ant", "bee") and data.shape == (6, 6, 3)
    assert len(data.train.labels) == 12 and len(data.test.labels) == 6
    for split, start in ((data.train, 0), (data.test, 12)):
        back = np.round(data.transform.inverse(split.images) * 255).astype(np.uint8)
        for i, (image, label) in enumerate(zip(back, split.labels, strict=True)):
            np.testing.assert_array_equal(image, pixels(start + i))
            assert label == (start + i) % 2


@pytest.mark.parametrize("form", ["saved", "parquet", "data folder", "one column file"])
def test_a_saved_folder_and_parquet_are_read(tmp_path: Path, form: str) -> None:
    train, test = table(0, 12), table(12, 6)
    top = tmp_path / "set"
    if form == "saved":
        saved(top / "train", train)
        saved(top / "test", test)
        (top / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    else:
        folder = top / "data" if form == "data folder" else top
        folder.mkdir(parents=True)
        pq.write_table(train.slice(0, 7), folder / "train-00000-of-00002.parquet")
        pq.write_table(train.slice(7), folder / "train-00001-of-00002.parquet")
        pq.write_table(test, folder / "test-00000-of-00001.parquet")
    whole(load({"name": "bugs", "path": str(top)}))
    whole(load({"name": "bugs", "path": str(top)}))  # from the cache


def test_one_split_is_the_training_data_and_is_streamed(tmp_path: Path) -> None:
    path = saved(tmp_path / "one", table(0, 20))
    held = load({"name": "bugs", "path": str(path), "test": 0.2})
    assert len(held.train.labels) == 16 and len(held.test.labels) == 4
    cache = str(tmp_path / "cache")
    fed = load({"name": "bugs", "path": str(path), "stream": True, "cache_dir": cache})
    np.testing.assert_array_equal(fed.train.labels, held.train.labels)


def test_text_labels_and_bare_columns(tmp_path: Path) -> None:
    words = ["wasp" if i % 2 else "ant" for i in range(12)]
    pq.write_table(table(0, 12, False, words), tmp_path / "a.parquet")
    data = load({"name": "bugs", "path": str(tmp_path / "a.parquet")})
    assert data.class_names == ("ant", "wasp")
    bare = pa.table(
        {"x": [encode(pixels(i)) for i in range(12)], "target": [i % 3 for i in range(12)]}
    )
    pq.write_table(bare, tmp_path / "b.parquet")
    assert load({"name": "bugs", "path": str(tmp_path / "b.parquet")}).class_names == (
        "0",
        "1",
        "2",
    )


@pytest.mark.parametrize("text", [False, True])
def test_classes_are_those_of_every_split_and_a_hidden_one_is_left_out(
    tmp_path: Path, text: bool
) -> None:
    """Files are read in alphabetical order: test comes before train, and shows fewer classes."""

    def labels(numbers: Any) -> Any:
        words = [None if n is None else "abc"[n] for n in numbers]
        hidden = [-1 if n is None else n for n in numbers]
        return pa.array(words, pa.large_string()) if text else hidden

    top = tmp_path / "set"
    top.mkdir()
    train = table(0, 12, False, labels([i % 3 for i in range(12)]))
    pq.write_table(train, top / "train.parquet")
    pq.write_table(table(12, 3, False, labels([0, 1, 0])), top / "test.parquet")
    data = load({"name": "bugs", "path": str(top)})
    assert data.class_names == (("a", "b", "c") if text else ("0", "1", "2"))
    assert data.test.labels.tolist() == [0, 1, 0]
    hidden = table(12, 3, False, labels([None] * 3))
    pq.write_table(hidden, top / "test.parquet")
    data = load({"name": "bugs", "path": str(top), "test": 0.25})
    assert len(data.test.labels) == 3 and len(data.train.labels) == 9
    assert any("split test has no labels" in note for note in data.notes)


def test_a_split_with_classes_in_another_order_is_refused(tmp_path: Path) -> None:
    pq.write_table(table(0, 12), tmp_path / "train.parquet")
    about = {"label": {"names": NAMES[::-1], "_type": "ClassLabel"}}
    other = table(12, 6, False).replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": about}})}
    )
    pq.write_table(other, tmp_path / "test.parquet")
    refused(lambda: load({"name": "bugs", "path": str(tmp_path)}), ":test", "bee, ant")


@pytest.mark.parametrize("case", ["columns", "no files", "no splits", "not JSON"])
def test_a_folder_that_is_not_whole_is_one_line(tmp_path: Path, case: str) -> None:
    top = tmp_path / "set"
    top.mkdir()
    if case == "columns":
        pq.write_table(table(0, 4), top / "train-0.parquet")
        pq.write_table(pa.table({"label": [1]}), top / "train-1.parquet")
    elif case == "no files":
        (top / "state.json").write_text('{"_data_files": []}')
    else:
        text = "{" if case == "not JSON" else '{"splits": []}'
        (top / "dataset_dict.json").write_text(text)
    refused(lambda: load({"name": "bugs", "source": "hf", "path": str(top)}), str(top))


def test_what_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: Any) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    refused(
        lambda: load({"name": "b", "path": str(tmp_path / "a.parquet")}), "a.parquet", "columns a"
    )
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    refused(
        lambda: load({"name": "b", "path": str(tmp_path / "b.parquet")}), "b.parquet", "cannot be"
    )
    pq.write_table(table(0, 4, labels=[0, 1, 2, 0]), tmp_path / "c.parquet")
    refused(lambda: load({"name": "b", "path": str(tmp_path / "c.parquet")}), "c.parquet")
    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    request = {"name": "b", "source": "hf", "path": "someone/bugs"}
    refused(lambda: load(request), "data.path", "someone/bugs", "jdd[hf]")
    refused(lambda: load(request | {"stream": True}), "data.stream", "hub")


def test_a_name_on_the_hub_is_asked_of_the_package(monkeypatch: Any) -> None:
    hub = types.ModuleType("datasets")

    def load_dataset(name: str) -> Any:
        assert name == "someone/bugs"
        splits = {"train": table(0, 12), "test": table(12, 6)}
        split = {
            n: types.SimpleNamespace(data=types.SimpleNamespace(table=t)) for n, t in splits.items()
        }
        return split

    hub.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(importlib.import_module("sys").modules, "datasets", hub)
    whole(load({"name": "bugs", "source": "hf", "path": "someone/bugs"}))

    def offline(name: str) -> Any:
        raise ConnectionError("Couldn't reach the hub\nmore")

    hub.load_dataset = offline  # type: ignore[attr-defined]
    refused(
        lambda: load({"name": "bugs", "source": "hf", "path": "someone/bugs"}),
        "data.path", "someone/bugs", "Couldn't reach the hub",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["hard", "probabilities"])
def test_a_set_is_exported_with_a_card_and_read_again(tmp_path: Path, kind: str) -> None:
    dset = tiny_distilled.make(kind=kind, names=("ant", 'bee: "b"', "crow"))
    top = jdd.export(dset, tmp_path / "out", "huggingface")
    found = pq.read_table(top / "data/train-00000-of-00001.parquet")
    assert found.column("label").to_pylist() == [0, 0, 1, 1, 2, 2]
    assert ("soft_label" in found.column_names) == (kind != "hard")
    about = json.loads(found.schema.metadata[b"huggingface"])["info"]["features"]
    # datasets 3, which the extra allows, has no type List.
    assert about.get("soft_label", {}).get("_type", "Sequence") == "Sequence"
    assert bytes(found.column("image")[3].as_py()["bytes"]) == preview.png(
        preview.to_pixels(dset)[3]
    )
    text = (top / "README.md").read_text(encoding="utf-8")
    given = dset._replace(lr=None).with_recipe(
        dset.recipe | {"train": dset.recipe["train"] | {"lr": 0.05}}
    )
    assert ", rate 0.05, augmentation" in huggingface_folder.card(given)
    learned = dset._replace(lr=0.023456789).with_recipe(
        dset.recipe | {"train": dset.recipe["train"] | {"lr": None}}
    )
    assert "learned rate 0.02346, augmentation" in huggingface_folder.card(learned)
    front = yaml.safe_load(text.split("---")[1])
    assert front["configs"][0]["data_files"][0] == {
        "split": "train",
        "path": "data/train-*.parquet",
    }
    assert "6 synthetic images of 4x4x3" in text and dset.recipe["command"] in text
    again = jdd.load(top)
    assert isinstance(again, DistilledSet)
    np.testing.assert_array_equal(again.images, dset.images)
    read = load({"name": "b", "path": str(top), "test": 0.5})
    assert read.class_names == dset.class_names
    with pytest.raises(BadInput, match="exists already"):
        jdd.export(dset, top, "huggingface")


def test_the_package_reads_what_is_written_and_writes_what_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    top = jdd.export(tiny_distilled.make(kind="logits"), tmp_path / "out", "huggingface")
    cache = str(tmp_path / "cache")
    read = datasets.load_dataset(str(top), cache_dir=cache)["train"]
    assert len(read) == 6 and read.features["label"].names == ["ant", "bee/wasp", "crow"]
    assert len(read[0]["soft_label"]) == 3
    read.save_to_disk(str(tmp_path / "saved"))
    assert load({"name": "b", "path": str(tmp_path / "saved")}).class_names[1] == "bee/wasp"
