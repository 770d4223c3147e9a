"""Tiny datasets written to tmp_path, in every form a user may bring."""

from __future__ import annotations

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from jdd.errors import BadInput


def encode(array, kind="PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.asarray(array, np.uint8)).save(out, kind)
    return out.getvalue()


def pixels(i, size=6, grey=False):
    """A small image that is different for every i."""
    shape = (size, size) if grey else (size, size, 3)
    return np.random.default_rng(i).integers(0, 256, shape, np.uint8)


def tree(splits=("train", "test"), classes=("ant", "bee"), count=5, grey=False, size=6, end="png"):
    """Return {path: bytes} of a class-folder dataset; "" as a split puts classes at the top."""
    kind = {"png": "PNG", "jpg": "JPEG"}[end]
    files, i = {}, 0
    for split in splits:
        for name in classes:
            for n in range(count):
                path = "/".join(part for part in (split, name, f"{n}.{end}") if part)
                files[path] = encode(pixels(i, size, grey), kind)
                i += 1
    return files


def write_folder(top, files):
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
    return top


def write_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_tar(path, files):
    end = path.suffix[1:]
    with tarfile.open(path, f"w:{end if end in ('xz', 'gz', 'bz2') else ''}") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def refused(call, where, *words) -> str:
    """Check that a call ends in a one-line BadInput that names ``where`` and holds the words."""
    with pytest.raises(BadInput) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line and caught.value.exit_code == 2
    assert str(where) in caught.value.where, line
    for word in words:
        assert word in line, f"{word!r} not in {line!r}"
    return line
