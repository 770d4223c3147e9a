"""Sets, stores and pictures with one flipped bit: refused, or read as they were.

Of jdd's own formats and of those of other programs. Formats without a checksum are in
``UNCHECKED``: a change of one is known by the fingerprint of the data or of the set, which a run
that has begun compares. By hand, N bits of each:

    python -m tests.faults.test_foreign N
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import os
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

from jdd import data, interop
from jdd import main as jdd_main
from jdd.data.sources import pixels
from jdd.errors import BadInput
from jdd.product import files
from jdd.soft_labels.store import LabelStore
from tests import tiny_pairs
from tests.faults.test_damage import damage
from tests.fuzz.test_loaders import _labels
from tests.test_generator_export import small
from tests.tiny_distilled import make

FEW = 40  # bits of a kind in a test
PICTURED = {"dataset": "own", "class_names": ("a", "b", "c"), "transform": make().transform}


class Kind(NamedTuple):
    """A format: its name, how it is written below a folder, and how it is read from there."""

    name: str
    write: Callable[[Path], object]
    read: Callable[[Path], object]


def picture(number: int, kind: str = "PNG", side: int = 8) -> bytes:
    out = io.BytesIO()
    draw = np.random.default_rng(number)
    Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8)).save(out, kind)
    return out.getvalue()


def pictures(folder: Path, ending: str = "png", kind: str = "PNG") -> None:
    """Write class folders of two pictures each."""
    for number in range(6):
        place = folder / "abc"[number % 3] / f"{number}.{ending}"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(picture(number, kind))


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "set.zip", "w") as out:
        for number in range(6):
            out.writestr(f"{'abc'[number % 3]}/{number}.png", picture(number))


def _npz(folder: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
    np.savez(folder / "data.npz", images=images, labels=np.arange(12) % 3)


def _set(name: str) -> Callable[[Path], object]:
    return lambda folder: interop.load(folder / name, **PICTURED)


def _data(name: str) -> Callable[[Path], object]:
    return lambda folder: data.load({"name": "own", "path": str(folder / name), "test": 0.34})


def _read_labels(folder: Path) -> object:
    store = LabelStore.open(folder)
    if store.epochs() < 1:  # a stage then labels it again, and training refuses it
        raise BadInput(str(folder), "the epoch is not complete", "label it again")
    return store.settings, store.read(0)


def _soft() -> Any:
    dset = make(lr=0.02)
    soft = np.random.default_rng(1).dirichlet(np.ones(3), len(dset.labels)).astype(np.float32)
    return dset._replace(labels=soft, label_kind="probabilities")


CHECKED = (
    Kind("class folders", lambda f: pictures(f / "set"), _set("set")),
    Kind("zip of class folders", _zip, _set("set.zip")),
    Kind("exported folder", lambda f: interop.export(_soft(), f / "png", "png"),
         lambda f: interop.load(f / "png")),
    Kind("exported safetensors", lambda f: interop.export(_soft(), f / "a.safetensors"),
         lambda f: interop.load(f / "a.safetensors")),
    Kind("jdd's npz", lambda f: _soft().save(f / "a.npz"), lambda f: interop.load(f / "a.npz")),
    Kind("npz of pairs", lambda f: tiny_pairs.learned().save(f / "a.npz"),
         lambda f: interop.load(f / "a.npz")),
    Kind("npz of a generator", lambda f: small("gaussian").save(f / "a.npz"),
         lambda f: interop.load(f / "a.npz")),
    Kind("exported weights", lambda f: interop.export(small("gaussian"), f / "g", "weights"),
         lambda f: interop.load(f / "g")),
    Kind("label store", lambda f: _labels(f / "e0000.npz"), _read_labels),
    Kind("npz of a dataset", _npz, _data("data.npz")),
    Kind("data in class folders", lambda f: pictures(f / "data/train"), _data("data")),
)  # fmt: skip
UNCHECKED = (
    Kind("class folders of JPEG", lambda f: pictures(f / "set", "jpg", "JPEG"), _set("set")),
    Kind("class folders of BMP", lambda f: pictures(f / "set", "bmp", "BMP"), _set("set")),
)


def content(found: Any) -> str:
    """Return a digest of all numbers and words of a set or a dataset."""
    parts: list[Any] = [files.to_arrays(found) if hasattr(found, "kind") else found]
    digest = hashlib.sha256()
    while parts:
        part = parts.pop()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + part.tobytes())
        elif isinstance(part, dict):
            parts += [value for item in sorted(part.items()) for value in item]
        elif isinstance(part, list | tuple):
            parts += part
        else:
            digest.update(repr(part).encode())
    return digest.hexdigest()


def survey(kind: Kind, place: Path, count: int) -> collections.Counter[str]:
    """Return what became of ``count`` flipped bits: refused, equal, or other."""
    kind.write(place)
    written = sorted(path for path in place.rglob("*") if path.is_file())
    wanted, found = content(kind.read(place)), collections.Counter[str]()
    for number in range(count):
        draw = random.Random(f"{kind.name} {number}")
        path = draw.choices(written, [file.stat().st_size for file in written])[0]
        whole = path.read_bytes()
        damage(path, "flip", draw)
        try:
            found["equal" if content(kind.read(place)) == wanted else "other"] += 1
        except BadInput as error:
            assert "\n" not in str(error) and str(error).strip()
            found["refused"] += 1
        path.write_bytes(whole)
    assert content(kind.read(place)) == wanted
    return found


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("JDD_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.filterwarnings("ignore")  # NumPy, Pillow and zipfile warn of damaged headers
@pytest.mark.parametrize("kind", CHECKED, ids=lambda kind: kind.name)
def test_a_flipped_bit_is_found_or_changes_nothing(kind: Kind, tmp_path: Path) -> None:
    found = survey(kind, tmp_path, FEW)
    assert found.total() == FEW and not found["other"], found


def test_no_member_of_a_zip_becomes_a_comment(tmp_path: Path) -> None:
    """The directory at the end has no checksum: a longer comment hides the members after it."""
    for kind, name in ((CHECKED[1], "set.zip"), (CHECKED[4], "a.npz")):
        kind.write(tmp_path)
        whole, wanted = (tmp_path / name).read_bytes(), content(kind.read(tmp_path))
        at, tried = whole.index(b"PK\1\2"), 0
        while whole[at : at + 4] == b"PK\1\2":
            for bit in range(16):
                flipped = bytearray(whole)
                flipped[at + 32 + bit // 8] ^= 1 << bit % 8
                (tmp_path / name).write_bytes(flipped)
                with contextlib.suppress(BadInput):
                    assert content(kind.read(tmp_path)) == wanted
                tried += 1
            lengths = np.frombuffer(whole[at + 28 : at + 34], "<u2")
            at += 46 + int(lengths.sum())
        assert tried >= 6 * 16
        (tmp_path / name).unlink()


def test_pixels_of_a_png_have_its_checksum() -> None:
    """Pillow does not compare it, and decodes the last bits of a row either way."""
    whole, found = picture(0, side=32), collections.Counter[str]()
    wanted = pixels.decode(whole, "a.png", None, 0).array
    for bit in range(8 * (len(whole) - 312), 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            read = pixels.decode(bytes(flipped), "a.png", None, 0)
        except BadInput:
            found["refused"] += 1
        else:
            assert np.array_equal(read.array, wanted)
            found["in IEND"] += bit >= 8 * (len(whole) - 12)
    assert found == {"refused": 8 * 300, "in IEND": 8 * 12}


OWN = ("--config.data.path=data", "--config.net.width=4", "--config.net.depth=2")
LITTLE = (
    *OWN, "--config.eval.epochs=1", "--config.eval.n=1", "--config.baselines.random=0",
    "--config.baselines.full=false", "--config.progress=false",
)  # fmt: skip
MADE = (
    *LITTLE, "--config=dm:own,ipc=1", "--config.steps=1", "--config.batch_real=2",
    "--config.eval.curve=0", "--config.data.dsa=none", "--mode=distill",
)  # fmt: skip
MEASURED = (*LITTLE, "--mode=evaluate", "--set=set", "--config.data.name=own", "--config.nets=MLP")


@pytest.mark.slow
def test_changed_pictures_are_never_mixed_into_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Of loose pictures without checksums: a bit that flips between two commands."""
    monkeypatch.chdir(tmp_path)
    for folder in ("data/train", "data/test", "set"):
        pictures(tmp_path / folder, "jpg", "JPEG")
    made, measured = [*MADE, "--workdir=made"], [*MEASURED, "--workdir=measured"]

    def ended(words: list[str]) -> tuple[int, str]:
        capsys.readouterr()
        code = jdd_main.main(words)
        out, err = capsys.readouterr()
        return code, err if code else out

    assert ended(made)[0] == 0 and ended([*measured, "--config.eval.lr=0.01"])[0] == 0
    for name, words in (("train", made), ("test", [*measured, "--config.eval.lr=0.01"])):
        path = tmp_path / "data" / name / "a/0.jpg"
        whole = path.read_bytes()
        path.write_bytes(picture(99, "JPEG"))
        code, line = ended(words)
        if name == "test":
            assert code == 0 and "have changed since the last command: measured anew" in line
        else:
            assert code == 2 and "other real images than those that made/distilled.npz" in line
            (tmp_path / "made/distilled.npz").rename(tmp_path / "set.npz")
            code, line = ended(words)  # the checkpoint is left
            assert code == 2 and "other real images or weights than distill began with" in line
        path.write_bytes(whole)
        code, line = ended(words)
        assert code == 0 and ("measured anew" in line) == (name == "test")
    (tmp_path / "set/a/0.jpg").write_bytes(picture(98, "JPEG"))
    code, line = ended([*measured, "--config.eval.lr=0.01"])
    assert code == 2 and "another set, or of this one before it changed" in line


def main(count: int) -> None:
    """Flip bits of every kind, and print a line each."""
    for kind in (*CHECKED, *UNCHECKED):
        with tempfile.TemporaryDirectory() as scratch:
            os.environ["JDD_CACHE"] = f"{scratch}/cache"
            (place := Path(scratch) / "files").mkdir()
            print(f"{kind.name:24}", dict(survey(kind, place, count)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
