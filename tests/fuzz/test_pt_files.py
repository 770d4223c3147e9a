"""Damaged PyTorch files, written without PyTorch: what happens with it, and without it.

Without it nothing of a ``.pt`` file is read, whole or damaged: one line that names the package.
With it a mutant is refused in one line, or read. No pickle is loaded by Python in either case. By
hand, with N mutants: ``python -m tests.fuzz.test_pt_files N``. Files of other forms, written by
PyTorch: ``tests/test_mutations.py``.
"""

from __future__ import annotations

import builtins
import collections
import importlib.util
import pickle
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jdd import interop
from jdd.errors import BadInput
from tests.test_mutations import KNOWN, mutant
from tests.tiny_distilled import make

FEW, MANY = 40, 600
INSTALLED = importlib.util.find_spec("torch") is not None


def write(path: Path, tensor: np.ndarray) -> Path:
    """Write a tensor of float32 or int64 as ``torch.save`` does: its pickle, by hand, and bytes."""
    kind = {"float32": b"FloatStorage", "int64": b"LongStorage"}[tensor.dtype.name]
    strides = [step // tensor.itemsize for step in np.ascontiguousarray(tensor).strides]
    storage = b"(" + _text(b"storage") + _name(b"torch", kind) + _text(b"0") + _text(b"cpu")
    storage += _numbers([tensor.size]) + b"tQ"  # a tuple, and the storage that it names
    arguments = b"(" + storage + _numbers([0])
    arguments += b"".join(b"(" + _numbers(each) + b"t" for each in (tensor.shape, strides))
    arguments += b"\x89" + _name(b"collections", b"OrderedDict") + b")Rt"
    code = b"\x80\x02" + _name(b"torch._utils", b"_rebuild_tensor_v2") + arguments + b"R."
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", code)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", tensor.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def _text(value: bytes) -> bytes:
    return b"X" + len(value).to_bytes(4, "little") + value


def _name(module: bytes, name: bytes) -> bytes:
    return b"c" + module + b"\n" + name + b"\n"


def _numbers(values: Sequence[int]) -> bytes:
    return b"".join(b"J" + int(value).to_bytes(4, "little") for value in values)


def release(folder: Path) -> Path:
    """Write images and labels as MTT's release has them; return the path of the images."""
    ours = make()
    write(folder / "labels_best.pt", ours.labels.astype(np.int64))
    images = np.ascontiguousarray(ours.images.transpose(0, 3, 1, 2), np.float32)
    return write(folder / "images_best.pt", images)


def outcome(path: Path) -> str:
    """Load a release; return 'read', 'refused', or 'needs PyTorch'."""
    try:
        interop.load(path, **KNOWN, transform=make().transform)
    except BadInput as error:
        assert error.exit_code == 2 and "\n" not in str(error)
        return "needs PyTorch" if "a .pt file needs PyTorch; pip" in str(error) else "refused"
    return "read"


def survey(folder: Path, count: int) -> collections.Counter[str]:
    """Return what became of a whole release and of ``count`` mutants of its images."""
    path = release(folder)
    whole, found = path.read_bytes(), collections.Counter([f"whole: {outcome(path)}"])
    for number in range(count):
        path.write_bytes(mutant("images.pt", number, whole))
        try:
            found[outcome(path)] += 1
        except Exception as error:
            raise AssertionError(f"mutant('images.pt', {number}): {error!r}") from error
    return found


@pytest.fixture(autouse=True)
def no_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a pickle was loaded")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)


def test_without_pytorch_every_file_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.partition(".")[0] == "torch":
            raise ImportError("No module named 'torch'")
        return imported(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert survey(tmp_path, FEW) == {"whole: needs PyTorch": 1, "needs PyTorch": FEW}


@pytest.mark.skipif(not INSTALLED, reason="needs PyTorch")
def test_with_pytorch_a_damaged_file_is_refused_or_read(tmp_path: Path) -> None:
    found = survey(tmp_path, FEW)
    assert found["whole: read"] == 1 and found["read"] + found["refused"] == FEW


def test_the_pickle_by_hand_is_that_of_a_tensor(tmp_path: Path) -> None:
    tensor = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    with zipfile.ZipFile(write(tmp_path / "a.pt", tensor)) as archive:
        code, held = archive.open("archive/data.pkl"), archive.read("archive/data/0")

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if name == "OrderedDict":
                return collections.OrderedDict
            return (lambda *words: words) if name == "_rebuild_tensor_v2" else f"{module}.{name}"

        def persistent_load(self, found: Any) -> Any:
            return found

    storage = ("storage", "torch.FloatStorage", "0", "cpu", 6)
    wanted = (storage, 0, (1, 2, 3), (6, 3, 1), False, collections.OrderedDict())
    assert Reader(code).load() == wanted and held == tensor.tobytes()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        became = survey(Path(scratch), int(sys.argv[1]) if len(sys.argv) > 1 else MANY)
        print("with" if INSTALLED else "without", "PyTorch:", dict(became))
