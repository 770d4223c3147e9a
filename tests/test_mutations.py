"""Damaged files of every kind that is read: one line of BadInput, or a set of sound numbers.

The mutants are seeded, so a failure names the one that failed: ``mutant(kind, number)`` (of
PyTorch's legacy format, which holds addresses, others in every process). By hand, with more of them
and a table of what became of them: ``python -m tests.test_mutations 2000``.
"""

from __future__ import annotations

import collections
import io
import random
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jdd import interop
from jdd.errors import BadInput
from jdd.product import distilled_set
from tests.tiny_distilled import NAMES, make

KINDS = (
    "mtt.pt", "mtt labels.pt", "mtt lr.pt", "uint8.pt", "dc.pt", "legacy.pt", "export.pt",
    "set.safetensors", "set.npz", "folders.zip",
)  # fmt: skip
KNOWN = {"dataset": "insects", "class_names": NAMES}
FEW, MANY = 40, 520


def originals(place: Path) -> dict[str, Path]:
    """Write a sound file of each kind, in a folder of its own; return what is mutated, by kind."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    ours, plain = make(zca="kip", kind="probabilities"), make()
    found = {}
    for kind in KINDS:
        folder = place / kind.replace(".", "-").replace(" ", "-")
        folder.mkdir()
        images = torch.from_numpy(plain.images).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(plain.labels).long()
        if kind.startswith("mtt"):
            torch.save(images, folder / "images_best.pt")
            torch.save(labels, folder / "labels_best.pt")
            torch.save(torch.tensor(0.0203), folder / "lr.pt")
            name = {"mtt labels.pt": "labels_best.pt", "mtt lr.pt": "lr.pt"}.get(kind)
            found[kind] = folder / (name or "images_best.pt")
            continue
        path = found[kind] = folder / kind
        if kind == "uint8.pt":
            torch.save([(images * 40 + 120).to(torch.uint8), labels.float()], path)
        elif kind in ("dc.pt", "legacy.pt"):
            scores = {"ConvNet": [np.float64(0.52), np.float64(0.53)]}
            new = {"_use_new_zipfile_serialization": kind == "dc.pt"}
            torch.save({"data": [[images, labels]] * 2, "accs_all_exps": scores}, path, **new)
        elif kind == "folders.zip":
            written = interop.export(plain, folder / "set")
            with zipfile.ZipFile(path, "w") as archive:
                for file in sorted(written.rglob("*.*")):
                    archive.write(file, str(file.relative_to(written)))
        else:
            interop.export(ours, path)
    return found


def _bits(draw: random.Random, data: bytearray) -> None:
    for _ in range(draw.randint(1, 8)):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _cut(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(len(data)) :]


def _swap(draw: random.Random, data: bytearray) -> None:
    size = draw.randint(1, min(64, len(data)))
    a, b = (draw.randrange(len(data) - size + 1) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def _insert(draw: random.Random, data: bytearray) -> None:
    at = draw.randrange(len(data))
    data[at:at] = draw.choice((draw.randbytes, bytes))(draw.randint(1, 64))


def _overwrite(draw: random.Random, data: bytearray) -> None:
    at, size = draw.randrange(len(data)), draw.randint(1, 16)
    data[at : at + size] = draw.choice((draw.randbytes, bytes, lambda n: b"\xff" * n))(size)


BYTES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _bits, _cut, _swap, _insert, _overwrite,
)  # fmt: skip


def _members(draw: random.Random, data: bytes) -> bytes:
    """Edit a member of a zip archive, with sums that fit: what is read is the damage itself."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = draw.randrange(len(members))
    name, held = members[at]
    edit = draw.choice(("bytes", "bytes", "bytes", "drop", "rename", "double", "exchange"))
    if edit == "bytes" and held:
        changed = bytearray(held)
        draw.choice(BYTES)(draw, changed)
        members[at] = (name, bytes(changed))
    elif edit == "drop":
        del members[at]
    elif edit == "rename":
        members[at] = (name[:-1] + "x", held)
    elif edit == "double":
        members.append((name, members[draw.randrange(len(members))][1]))
    else:
        other = draw.randrange(len(members))
        members[at], members[other] = (name, members[other][1]), (members[other][0], held)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, held in members:
            archive.writestr(zipfile.ZipInfo(name), held)
    return out.getvalue()


def mutant(kind: str, number: int, whole: bytes) -> bytes:
    """Return one damaged file, the same for the same kind and number."""
    draw = random.Random(f"{kind} {number}")
    if whole.startswith(b"PK") and draw.random() < 0.5:
        return _members(draw, whole)
    data = bytearray(whole)
    if kind == "set.safetensors" and draw.random() < 0.5:  # its header: names, types and places
        head = bytearray(data[: 8 + int.from_bytes(data[:8], "little")])
        size = len(head)
        draw.choice(BYTES)(draw, head)
        data[:size] = head
    else:
        draw.choice(BYTES)(draw, data)
    return bytes(data)


def outcome(path: Path) -> str:
    """Load a file as a person would; return 'refused' or 'read', or raise what is wrong."""
    known = KNOWN | {"transform": make().transform} if _foreign(path) else {}
    try:
        dset = interop.load(path, **known)
    except BadInput as error:
        assert error.exit_code == 2 and str(error).isprintable() and "\n" not in str(error)
        return "refused"
    assert dset.images.dtype == np.float32 and np.isfinite(dset.images).all()
    assert np.abs(dset.images).max() <= 1e4
    assert dset.lr is None or 1e-12 <= dset.lr <= 1e4
    assert np.isfinite(dset.labels).all() and np.abs(dset.labels).max() <= 1e4
    for array in dset.transform:
        assert array is None or (np.isfinite(array).all() and np.abs(array).max() <= 1e4)
    distilled_set.to_arrays(distilled_set.validate(dset, "again"))
    return "read"


def _foreign(path: Path) -> bool:
    return path.name not in ("export.pt", "set.safetensors", "set.npz")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return originals(tmp_path_factory.mktemp("sound"))


def survey(path: Path, kind: str, count: int) -> collections.Counter[str]:
    """Return what became of ``count`` mutants of the file at ``path``; the file is left whole."""
    whole, found = path.read_bytes(), collections.Counter[str]()
    target = path.parent if kind.startswith("mtt") else path
    assert outcome(target) == "read"
    try:
        for number in range(count):
            path.write_bytes(mutant(kind, number, whole))
            try:
                found[outcome(target)] += 1
            except Exception as error:
                raise AssertionError(f"mutant({kind!r}, {number}): {error!r}") from error
    finally:
        path.write_bytes(whole)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_refused_in_a_line_or_hold_sound_numbers(sound, kind):
    found = survey(sound[kind], kind, FEW)
    assert found["refused"] > FEW // 4 and found.total() == FEW


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_damaged_files(sound, kind):
    assert survey(sound[kind], kind, MANY).total() == MANY


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        for kind, path in originals(Path(scratch)).items():
            print(f"{kind:16}", dict(survey(path, kind, int(sys.argv[1]))), flush=True)
