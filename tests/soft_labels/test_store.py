"""Labels come back as written; half a file, a foreign one and other settings do not pass."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from jdd.errors import BadInput, StorageError
from jdd.soft_labels import codec
from jdd.soft_labels.store import LabelStore

N, B, C = 10, 4, 6
SETTINGS = {
    "images": "0123abcd", "teachers": ["T"], "views": {"crop": "resized", "scale": (0.08, 1.0)},
    "batch": B, "epochs": 3, "seed": 0, "classes": C, "form": "logits",
}  # fmt: skip


def in_steps(order: np.ndarray, batch: int) -> np.ndarray:
    """Cut an epoch's order [n] into steps of ``batch`` rows, padded with -1."""
    index = np.full(-(-len(order) // batch) * batch, -1, np.int32)
    index[: len(order)] = order
    return index.reshape(-1, batch)


def epoch(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Return (index, views, logits) of an epoch of three steps, the last half padding."""
    draw = np.random.default_rng(seed)
    index = in_steps(draw.permutation(N), B)
    views = {
        "box": draw.integers(0, 32, (3, B, 4)).astype(np.int16),
        "flip": draw.integers(0, 2, (3, B)).astype(bool),
        "lam": draw.uniform(size=3).astype(np.float32),  # one a step
    }
    return index, views, draw.normal(0, 5, (3, B, C)).astype(np.float32)


def filled(path, epochs=3, **settings: Any) -> LabelStore:
    store = LabelStore(path, SETTINGS | settings)
    store.create()
    for e in range(epochs):
        store.write(e, *epoch(e))
    return store


def test_what_is_written_is_read_to_the_bit(tmp_path):
    store = filled(tmp_path / "labels")
    for e in range(3):
        index, views, logits = epoch(e)
        found_index, found_views, labels = LabelStore(store.directory, SETTINGS).read(e)
        np.testing.assert_array_equal(found_index, index)
        assert found_index.dtype == np.int32 and set(found_views) == set(views)
        for name, view in views.items():
            assert found_views[name].dtype == view.dtype
            assert found_views[name].tobytes() == view.tobytes()
        real = index >= 0
        assert labels["logits"][real].tobytes() == logits[real].astype(np.float16).tobytes()
        assert not labels["logits"][~real].any() and (~real).sum() == 2
    assert store.epochs() == 3 and store.has(3) and not store.has(4)


@pytest.mark.parametrize("form", codec.FORMS[1:])
def test_every_form_is_the_one_of_encode(tmp_path, form):
    store = filled(tmp_path, 1, form=form, k=2, temperature=3.0)
    index, _, logits = epoch(0)
    found = store.read(0)[2]
    for name, wanted in codec.encode(logits, form, 2, 3.0).items():
        np.testing.assert_array_equal(found[name][index >= 0], wanted[index >= 0])


@pytest.mark.parametrize("form, k", [("logits", 0), ("topk_marginal", 3), ("hard", 0)])
def test_bytes_are_known_beforehand(tmp_path, form, k):
    images, batch, classes, epochs = 150, 64, 300, 2
    settings = {"form": form, "classes": classes, "k": k, "temperature": 2.0}
    store = LabelStore(tmp_path, settings)
    store.create()
    index = in_steps(np.arange(images), batch)
    views = {"box": np.zeros((*index.shape, 4), np.int16), "lam": np.zeros(len(index), np.float32)}
    logits = np.random.default_rng(0).normal(size=(*index.shape, classes))
    for e in range(epochs):
        store.write(e, index, views, logits)
    told = codec.expected_bytes(images, epochs, classes, form, k, 8, batch, 4)
    parts = [store.read(e) for e in range(epochs)]
    arrays = sum(i.nbytes + sum(a.nbytes for d in rest for a in d.values()) for i, *rest in parts)
    assert arrays == told
    files = sum(store.path(e).stat().st_size for e in range(epochs))
    assert 0 <= files - told <= 0.01 * told + 2048 * epochs


def test_the_digest_is_of_the_contents(tmp_path):
    one, two = filled(tmp_path / "a"), filled(tmp_path / "b")
    assert one.digest() == two.digest() and len(one.digest()) == 16
    index, views, logits = epoch(2)
    logits[0, 0, 0] += 1
    two.write(2, index, views, logits)
    assert one.digest() != two.digest()
    assert one.digest() != filled(tmp_path / "c", 2).digest()
    assert one.digest() != filled(tmp_path / "d", seed=1).digest()
    logits = epoch(2)[2]
    logits[2, 2:] = 99  # padding
    two.write(2, index, views, logits)
    assert one.digest() == two.digest()


def test_other_settings_are_refused_by_name(tmp_path):
    store = filled(tmp_path, 1)
    before = store.path(0).read_bytes()
    with pytest.raises(BadInput) as error:
        LabelStore(tmp_path, SETTINGS | {"seed": 1, "teachers": ["T", "U"], "new": 2})
    for words in ("seed=0", "seed=1", "teachers=['T']", "new=None", "new=2", "delete it"):
        assert words in str(error.value)
    assert "batch" not in str(error.value)
    assert store.path(0).read_bytes() == before
    early = LabelStore(tmp_path / "new", SETTINGS)
    LabelStore(tmp_path / "new", SETTINGS | {"seed": 1}).create()
    with pytest.raises(BadInput, match="seed=1"):
        early.create()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 1}', '{"settings": 3}', "\x00"])
def test_a_foreign_settings_file_is_refused(tmp_path, text):
    (tmp_path / "labels.json").write_text(text)
    with pytest.raises(BadInput, match="not a label store's settings"):
        LabelStore(tmp_path, SETTINGS)


def test_settings_that_make_no_label_are_refused(tmp_path):
    for change, words in (
        ({"form": "soft"}, "one of logits"),
        ({"form": "topk_marginal", "temperature": 1}, "1 to 6"),
        ({"form": "topk_marginal", "k": 2}, "temperature"),
        ({"classes": 1}, "2 or more"),
    ):
        with pytest.raises(BadInput, match=words):
            LabelStore(tmp_path, SETTINGS | change)


def test_half_a_file_is_not_counted_and_not_read(tmp_path):
    store = filled(tmp_path)
    path = store.path(1)
    whole = path.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:size])
        assert store.epochs() == 1 and not store.has(2)
        with pytest.raises(BadInput, match="delete it") as error:
            store.read(1)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
    path.unlink()
    (tmp_path / ".e0001.npz.77.part").write_bytes(whole)
    (tmp_path / "e0001.tmp").write_bytes(whole)
    assert store.epochs() == 1
    with pytest.raises(BadInput, match="no such labels; 1 epochs"):
        store.read(1)
    store.write(1, *epoch(1))
    assert store.epochs() == 3 and path.read_bytes() == whole


def test_damage_inside_a_file_is_seen(tmp_path):
    store = filled(tmp_path, 1)
    data = bytearray(store.path(0).read_bytes())
    data[data.index(b"index.npy") + 140] ^= 255
    store.path(0).write_bytes(bytes(data))
    with pytest.raises(BadInput, match="delete it"):
        store.read(0)
    with pytest.raises(BadInput, match="delete it"):
        store.digest()


def test_a_torn_write_leaves_the_old_file(tmp_path, monkeypatch):
    store = filled(tmp_path, 1)
    before = store.path(0).read_bytes()

    def torn(file, **arrays):
        file.write(b"PK half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", torn)
    for e in (0, 1):
        with pytest.raises(StorageError, match="No space left"):
            store.write(e, *epoch(5))
    assert store.path(0).read_bytes() == before and store.epochs() == 1
    assert sorted(p.name for p in tmp_path.glob("[!.]*")) == ["e0000.npz", "labels.json"]
    assert json.loads((tmp_path / "labels.json").read_text())["settings"]["classes"] == C


@pytest.mark.parametrize(
    "change, words",
    [
        ({"index": None}, "no array index"),
        ({"label/logits": None}, "no array label/logits"),
        ({"index": np.zeros((3, B), np.int64)}, "index is int64"),
        ({"index": np.zeros(3, np.int32)}, "index is int32"),
        ({"label/logits": np.zeros((3, B, C + 1), np.float16)}, "label/logits is float16"),
        ({"label/logits": np.zeros((3, B, C), np.float32)}, "float16.3, 4, 6. is needed"),
        ({"view/box": np.asarray([{}], object)}, "pickled"),
    ],
)
def test_foreign_arrays_are_refused(tmp_path, change, words):
    store = filled(tmp_path, 1)
    with np.load(store.path(0)) as archive:
        arrays = dict(archive) | change
    np.savez(store.path(0), **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(BadInput, match=words) as error:
        store.read(0)
    assert "delete it" in str(error.value) and str(store.path(0)) in str(error.value)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"index": np.zeros((3, B), np.float32)}, "integers"),
        ({"index": np.zeros(3, np.int32)}, "integers"),
        ({"index": np.full((3, B), -1, np.int32)}, "only at the end"),
        ({"index": in_steps(np.arange(10), B)[::-1]}, "only at the end"),
        ({"index": np.asarray([[0] * B, [0] * B, [-1] * B])}, "only at the end"),
        ({"index": np.full((3, B), -2, np.int32)}, "only at the end"),
        ({"logits": np.zeros((3, B, C + 1))}, "logits of shape"),
        ({"logits": np.full((3, B, C), 1e5)}, "65504"),
        ({"views": {"box": np.zeros((2, B))}}, "view box"),
        ({"views": {"box": np.asarray([{}] * 3, object)}}, "view box object"),
    ],
)
def test_what_does_not_fit_is_not_written(tmp_path, change, words):
    index, views, logits = epoch(0)
    arguments = {"index": index, "views": views, "logits": logits} | change
    store = filled(tmp_path, 0)
    with pytest.raises(BadInput, match=words):
        store.write(0, **arguments)
    assert [p.name for p in tmp_path.glob("[!.]*")] == ["labels.json"]
