"""Only regular files within limits are read; no name leads out of its folder."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jdd import data, interop
from jdd.data.sources import archive
from jdd.errors import BadInput
from jdd.product import files
from jdd.storage import json_files, npz_files, regular, tensors
from tests.tiny_distilled import make

READERS = {
    "set": (interop.load, ".npz"),
    "safetensors": (interop.load, ".safetensors"),
    "weights": (lambda path: tensors.listed(path), ".safetensors"),
    "data": (lambda path: data.load({"name": "own", "path": str(path)}), ".npz"),
    "archive": (lambda path: data.load({"name": "own", "path": str(path)}), ".zip"),
    "json": (lambda path: json_files.read(path, "write it again"), ".json"),
    "npy": (lambda path: npz_files.read_npy(path, "an array"), ".npy"),
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pipes_and_devices_are_refused_at_once(tmp_path, name, kind):
    read, suffix = READERS[name]
    path = tmp_path / f"a{suffix}"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(BadInput, match=f"is a {kind}"):
        read(path)


def test_a_pipe_in_a_folder_of_pictures_is_refused(tmp_path):
    (tmp_path / "train/a").mkdir(parents=True)
    os.mkfifo(tmp_path / "train/a/1.png")
    with pytest.raises(BadInput, match="1.png: is a pipe; a regular file is needed"):
        list(archive.walk(tmp_path, lambda parts: True))


def bomb(path: Path, name: str = "images.npy", size: int = 1 << 27) -> Path:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (size,)}
    )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, out.open(name, "w") as file:
        file.write(head.getvalue())
        for _ in range(size >> 20):
            file.write(bytes(1 << 20))
    return path


def test_a_small_file_of_a_large_array_is_refused_and_the_variable_allows_it(tmp_path, monkeypatch):
    path = bomb(tmp_path / "a.npz")
    assert path.stat().st_size < 1 << 18
    for read in (interop.load, files.load, READERS["data"][0]):
        with pytest.raises(BadInput, match=r"128 MB from .* JDD_MAX_EXPANSION=\d+ allows it") as e:
            read(path)
    value = str(e.value).split("JDD_MAX_EXPANSION=")[1].split()[0]
    monkeypatch.setenv("JDD_MAX_EXPANSION", value)
    assert npz_files.headers(path, "")["images"] is not None
    monkeypatch.setenv("JDD_MAX_EXPANSION", "many")
    with pytest.raises(BadInput, match="JDD_MAX_EXPANSION: 'many'; a whole number"):
        npz_files.headers(path, "")


def test_a_large_picture_in_an_archive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("JDD_MAX_FILE_MB", "2")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("train/a/1.png", bytes(3 << 20))
    with tarfile.open(tmp_path / "a.tar.xz", "w:xz") as tar:
        info = tarfile.TarInfo("train/a/1.png")
        info.size = 3 << 20
        tar.addfile(info, io.BytesIO(bytes(3 << 20)))
    (tmp_path / "folder/train/a").mkdir(parents=True)
    (tmp_path / "folder/train/a/1.png").write_bytes(bytes(3 << 20))
    for name in ("a.zip", "a.tar.xz", "folder"):
        with pytest.raises(BadInput, match="1.png: 3 MB .* JDD_MAX_FILE_MB=4 allows it"):
            list(archive.walk(tmp_path / name, lambda parts: True))
        monkeypatch.setenv("JDD_MAX_FILE_MB", "4")
        assert any(entry.data for entry in archive.walk(tmp_path / name, lambda parts: True))
        monkeypatch.setenv("JDD_MAX_FILE_MB", "2")


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "C:/x", "..\\a", "", "a\0b"])
def test_no_name_leads_out_of_its_folder(tmp_path, name):
    with pytest.raises(BadInput, match="a path inside it"):
        regular.inside(tmp_path, name, "row 3")


def test_names_inside_a_folder_are_its_files(tmp_path):
    assert regular.inside(tmp_path, "a/b.png", "") == tmp_path / "a/b.png"
    assert regular.inside(tmp_path, str(tmp_path / "a.png"), "") == tmp_path / "a.png"


def test_a_flipped_byte_of_a_set_or_an_export_is_found(tmp_path):
    """Of the numbers of a set by a checksum of zip, of those of an export by its digest."""
    pytest.importorskip("safetensors")
    path = make().save(tmp_path / "a.npz")
    exported = interop.export(make(), tmp_path / "a.safetensors")
    for file in (path, exported):
        whole = file.read_bytes()
        pixels = make().images.tobytes()
        start = whole.index(pixels)
        for at in range(start, start + len(pixels), 37):
            changed = bytearray(whole)
            changed[at] ^= 1
            file.write_bytes(bytes(changed))
            with pytest.raises(BadInput):
                interop.load(file)
        file.write_bytes(whole)
        assert (interop.load(file).images == make().images).all()
