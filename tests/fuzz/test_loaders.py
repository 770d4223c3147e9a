"""Every loader on damaged and hostile files: one line of BadInput, or it reads them.

The mutants are seeded: a failure names ``(kind, number)``. No traceback, nothing is written outside
the cache, no pickle is loaded (``pickle.load`` fails in these tests). By hand, with more of them:
``python -m tests.fuzz.test_loaders 2000``.
"""

from __future__ import annotations

import collections
import io
import json
import pickle
import random
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from jdd import config as configs
from jdd import data, interop
from jdd.data import label_noise
from jdd.data.sources import caption_files
from jdd.errors import BadInput
from jdd.product import files, recipe_types
from jdd.run import metric_lines
from jdd.soft_labels.store import LabelStore
from jdd.storage import json_files, tensors
from tests.pins.left import ANY
from tests.test_mutations import mutant
from tests.tiny_distilled import make

FEW, MANY = 25, 600
PICTURED = {"dataset": "own", "class_names": ("a", "b"), "transform": make().transform}


class Kind(NamedTuple):
    """A kind of file: its name, how it is written, how it is read."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


def _png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(out, "PNG")
    return out.getvalue()


def _dataset(path: Path) -> None:
    images = np.arange(12 * 192, dtype=np.uint8).reshape(12, 8, 8, 3)
    names = np.array(["a", "b", "c"])
    np.savez(path, images=images, labels=np.arange(12) % 3, class_names=names)


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as out:
        for name in "ab":
            for i in range(6):
                out.writestr(f"train/{name}/{i}.png", _png())


def _pictures(path: Path) -> None:
    for name in "ab":
        folder = path.parents[1] / name
        folder.mkdir(parents=True)
        for i in range(6):
            (folder / f"{i}.png").write_bytes(_png())


def _labels(path: Path) -> None:
    settings = {"classes": 3, "form": "topk_renormalised", "k": 2, "temperature": 2.0}
    store = LabelStore(path.parent, settings)
    store.create()
    logits = np.linspace(-2, 2, 18, dtype=np.float32).reshape(2, 3, 3)
    store.write(0, np.arange(6).reshape(2, 3), {"crop": np.zeros((2, 3, 4), np.float32)}, logits)


def _load_labels(path: Path) -> None:
    store = LabelStore.open(path.parent)
    if store.epochs():
        store.read(0)


def _json(path: Path) -> None:
    json_files.write(path, {"a": [1.5, {"b": "c"}], "accuracy": {"ConvNet": {"mean": 0.5}}})


def _load(name: str) -> Callable[[Path], object]:
    return lambda path: data.load({"name": name, "path": str(path), "test": 0.34})


def _captions(path: Path) -> None:
    rows = [{"image": f"{i}.png", "captions": ["a dog", "a cat"]} for i in range(4)]
    path.write_text("\n".join(map(json.dumps, rows)))


def _table(path: Path) -> None:
    path.write_text("image,caption\n" + "".join(f"{i}.png,a red {i}\n" for i in range(5)))


def _lines(path: Path) -> None:
    rows = [{"stage": "distill", "step": i, "loss": i / 3} for i in range(6)]
    metric_lines.replace(path, [json.dumps(row) + "\n" for row in rows])


def _read_captions(path: Path) -> object:
    return caption_files.parse(path.read_bytes(), str(path))


def _weights(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.ones((3, 4), np.float32), "b": np.zeros(3, np.float32)}, path)


def _config(path: Path) -> None:
    config = configs.resolve(configs.load("dm", {"data.name": "digits"}).config)[0]
    path.write_text(configs.to_json(config))


KINDS = (
    Kind("set.npz", lambda p: make(zca="kip").save(p), interop.load),
    Kind("weighted.npz", lambda p: make()._replace(weights=np.ones(6)).save(p), files.load),
    Kind("set.safetensors", lambda p: interop.export(make(), p), interop.load),
    Kind("dataset.npz", _dataset, _load("own")),
    Kind("classes.zip", _zip, _load("own2")),
    Kind("set/train/a/0.png", _pictures, lambda p: interop.load(p.parents[2], **PICTURED)),
    Kind("data/train/a/0.png", _pictures, lambda p: _load("own3")(p.parents[2])),
    Kind("e0000.npz", _labels, _load_labels),
    Kind("labels.npy", lambda p: np.save(p, np.arange(9)), lambda p: label_noise._read("k", p, "")),
    Kind("labels.csv", lambda p: p.write_text("a,b\n1,2\n3,4\n"),
         lambda p: label_noise._read("data.labels", p, "a")),
    Kind("captions.jsonl", _captions, _read_captions),
    Kind("captions.csv", _table, _read_captions),
    Kind("state.json", _json, lambda p: json_files.read(p, "write it again")),
    Kind("config.json", _config, configs.stored),
    Kind("metrics.jsonl", _lines, metric_lines.read),
    Kind("weights.safetensors", _weights, lambda p: tensors.read(p, ("w", "b"))),
)  # fmt: skip


def outcome(kind: Kind, path: Path) -> str:
    """Read a file; return 'refused' or 'read', or raise what is wrong."""
    try:
        kind.read(path)
    except BadInput as error:
        assert error.exit_code == 2 and str(error).strip() and "\n" not in str(error)
        return "refused"
    return "read"


def survey(kind: Kind, folder: Path, count: int) -> collections.Counter[str]:
    """Return what became of ``count`` mutants of a file."""
    path = folder / kind.name
    kind.write(path)
    whole, found = path.read_bytes(), collections.Counter[str]()
    assert outcome(kind, path) == "read"
    before = sorted(folder.rglob("*"))
    for number in range(count):
        path.write_bytes(mutant(kind.name, number, whole))
        try:
            found[outcome(kind, path)] += 1
        except Exception as error:
            raise AssertionError(f"mutant({kind.name!r}, {number}): {error!r}") from error
    assert sorted(folder.rglob("*")) == before
    return found


@pytest.fixture(autouse=True)
def no_pickle(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was loaded")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setenv("JDD_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.filterwarnings("ignore")  # NumPy and zipfile warn of damaged headers
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_damaged_files_are_refused_in_a_line_or_read(kind, tmp_path):
    assert survey(kind, tmp_path, FEW).total() == FEW


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_many_damaged_files(kind, tmp_path):
    assert survey(kind, tmp_path, MANY).total() == MANY


HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 2.5, 10**400, float("nan"), "x", "<b>&", [], [1], ["a", 3], {}, {"a": [{}]},
)  # fmt: skip


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else ()
    return [at, *(place for key, child in inside for place in _places(child, (*at, key)))]


def hostile_recipes() -> list[tuple[tuple[Any, ...], Any, str]]:
    """Return recipes with one entry of another type: its place, the value and the JSON text."""
    recipe = json.loads(str(files.to_arrays(make())["recipe"]))
    made = []
    for place in _places(recipe)[1:]:
        for value in HOSTILE:
            changed = json.loads(json.dumps(recipe))
            at = changed
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = value
            made.append((place, value, json.dumps(changed)))
    return made


def test_a_recipe_of_wrong_types_is_refused_or_usable(tmp_path):
    arrays = files.to_arrays(make())
    refused = 0
    draw = random.Random(0)
    for place, value, text in draw.sample(hostile_recipes(), 120):
        np.savez(tmp_path / "a.npz", **arrays | {"recipe": np.asarray(text)})
        try:
            found = interop.load(tmp_path / "a.npz")
            repr(found), found._repr_html_(), found.classes_of_images, interop.export
        except BadInput as error:
            refused += 1
            assert "\n" not in str(error)
        except Exception as error:
            raise AssertionError(f"recipe.{'.'.join(place)} = {value!r}: {error!r}") from error
    assert refused > 40


def test_recipes_of_every_pinned_method_are_of_the_types():
    pinned = json.loads((Path(__file__).parents[1] / "pins/pins.json").read_text())
    recipes = [found["recipe"] for found in _sets(pinned)]
    assert len(recipes) > 10
    for recipe in recipes:
        train = {n: v for n, v in recipe["train"].items() if n != "lr" or v != ANY}
        recipe_types.validate(recipe | {"train": train}, "pinned")


def _sets(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, dict):
        return []
    own = [value] if isinstance(value.get("recipe"), dict) else []
    return own + [found for child in value.values() for found in _sets(child)]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 50_000, "9" * 5000, "\ud800", "[]"])
def test_hostile_json_is_one_line(tmp_path, text):
    arrays = files.to_arrays(make())
    if text != "\ud800":
        np.savez(tmp_path / "a.npz", **arrays | {"recipe": np.asarray(text)})
        with pytest.raises(BadInput, match="recipe"):
            interop.load(tmp_path / "a.npz")
    path = tmp_path / "state.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    assert json_files.recall(path) is None
    with pytest.raises(BadInput, match=str(path)):
        json_files.read(path, "write it again")


HEADERS = (
    "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999999,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': " + "(" * 3000 + "), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (True,), }",
    "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }",
    "'''",
    "{'descr': '<U1073741824', 'fortran_order': False, 'shape': (1 << 9,), }",
)


@pytest.mark.parametrize("header", HEADERS, ids=range(len(HEADERS)))
@pytest.mark.parametrize("name", ["images", "labels", "recipe"])
def test_hostile_headers_are_one_line(tmp_path, header, name):
    text = header.encode().ljust(118) + b"\n"
    member = b"\x93NUMPY\x02\x00" + len(text).to_bytes(4, "little") + text + bytes(64)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        for other, array in files.to_arrays(make()).items():
            data = io.BytesIO()
            np.save(data, array)
            out.writestr(f"{other}.npy", member if other == name else data.getvalue())
    for read in (interop.load, _load("own")):
        with pytest.raises(BadInput) as error:
            read(tmp_path / "a.npz")
        assert "\n" not in str(error.value)


def test_a_member_of_raw_bytes_is_no_array(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as out:
        out.writestr("images.npy", b"raw bytes")
    with pytest.raises(BadInput, match="images: no array, but other bytes"):
        files.load(tmp_path / "a.npz")


def test_an_array_that_appears_under_another_name_is_found(tmp_path):
    """A flipped bit of a name would else leave an optional array out: the rate, the validation."""
    path = make(lr=0.02).save(tmp_path / "a.npz")
    whole = path.read_bytes()
    at = whole.rindex(b"lr.npy")  # in the directory at the end
    path.write_bytes(whole[:at] + b"lp" + whole[at + 2 :])
    with pytest.raises(BadInput, match="a.npz"):
        files.load(path)


if __name__ == "__main__":
    for one in KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            print(f"{one.name:20}", dict(survey(one, Path(scratch), int(sys.argv[1]))), flush=True)
