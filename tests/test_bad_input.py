"""Every bad input the command line must meet with one line, exit code 2 and nothing overwritten."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from jdd import main
from tests import runs


def call(capsys, keys, *words, workdir):
    """Run the command line with the tiny run's keys; return exit code and stderr."""
    args = [f"--config.{k}={v}" for k, v in keys.items()]
    code = main.main(["--config=mtt", *args, f"--workdir={workdir}", *words])
    return code, capsys.readouterr().err


def refused(capsys, keys, *words, workdir, says=()):
    before = sorted(Path(workdir).rglob("*")) if Path(workdir).exists() else []
    code, err = call(capsys, keys, *words, workdir=workdir)
    assert code == 2, err
    assert err.startswith("jdd: error: ") and err.count("\n") == 1, err
    for word in says:
        assert word in err, err
    after = sorted(Path(workdir).rglob("*")) if Path(workdir).exists() else []
    assert before == after
    return err


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"ipc": 0}, ("config.ipc", "0")),
        ({"ipc": -3}, ("config.ipc", "-3")),
        ({"ipc": 21}, ("config.ipc", "21", "1 to 20")),
        ({"net.name": "ConvNett"}, ("config.net.name", "ConvNett", "ConvNet?")),
        ({"nets": "ConvNet,AlexNett"}, ("config.nets", "AlexNett", "AlexNet?")),
        ({"nets": "VGG11"}, ("VGG11", "8x8")),
        ({"lr_imgg": 1}, ("config.lr_imgg", "lr_img?")),
        ({"data.name": "cifar1", "data.path": ""}, ("config.data.name", "cifar10?")),
        ({"steps": "many"}, ("config.steps", "many")),
        ({"unroll": "sideways"}, ("config.unroll", "sideways", "mixed")),
        ({"devices": 99}, ("config.devices", "99")),
        ({"data.path": "nowhere.npz"}, ("nowhere.npz",)),
    ],
)
def test_keys(capsys, tiny, tmp_path, keys, says):
    refused(capsys, {**tiny, **keys}, workdir=tmp_path / "run", says=says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mode=destill"], ("--mode", "distill?")),
        (["--wrkdir=x"], ("--wrkdir", "--workdir?")),
        (["--mode=evaluate", "--set=nothing.npz"], ("nothing.npz",)),
        (["--mode=distill"], ("--mode=distill", "--mode=experts")),
    ],
)
def test_flags(capsys, tiny, tmp_path, words, says):
    place = tmp_path / "run"
    code, err = call(capsys, tiny, *words, workdir=place)
    assert code == 2 and err.count("\n") == 1
    assert all(word in err for word in says), err


def test_unknown_config(capsys, tmp_path):
    assert main.main(["--config=configs/mt.py", f"--workdir={tmp_path}"]) == 2
    err = capsys.readouterr().err
    assert "configs/mt.py" in err and "mtt.py" in err and err.count("\n") == 1


def npz(path, **changes):
    arrays = {
        "x_train": np.zeros((12, 8, 8, 3), np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": np.zeros((6, 8, 8, 3), np.uint8),
        "y_test": np.arange(6) % 3,
    }
    np.savez(path, **{**arrays, **changes})
    return path


def png(size=(8, 8), value=0):
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(file, "PNG")
    return file.getvalue()


def archive(path, entries):
    with zipfile.ZipFile(path, "w") as out:
        for name, data in entries.items():
            out.writestr(name, data)
    return path


def split_zip(path, **changes):
    entries = {
        f"{split}/{c}/{i}.png": png(value=i) for split in ("train", "test") for c in "ab"
        for i in range(3)
    }  # fmt: skip
    entries.update(changes)
    return archive(path, {k.replace("|", "/"): v for k, v in entries.items()})


def bad_files(place: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    nan = np.zeros((12, 8, 8, 3), np.float32)
    nan[3, 0, 0, 0] = np.nan
    whole = split_zip(place / "whole.zip").read_bytes()
    for name, data in {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "text": b"hello" * 99,
    }.items():
        (place / f"{name}.zip").write_bytes(data)
    (place / "folder" / "train" / "a").mkdir(parents=True)
    (place / "folder" / "train" / "b").mkdir()
    for i in range(3):
        (place / "folder" / "train" / "a" / f"{i}.png").write_bytes(png())
    outside = {"train/a/1.png": png(), "../evil.png": png()}
    return {
        "nan": (npz(place / "nan.npz", x_train=nan), ("nan.npz",)),
        "labels": (npz(place / "labels.npz", y_train=np.arange(12) - 1), ("labels.npz",)),
        "pickle": (
            npz(place / "pickle.npz", x_train=np.array([{}], dtype=object)),
            ("pickle.npz",),
        ),
        "empty archive": (place / "empty.zip", ("empty.zip",)),
        "truncated archive": (place / "cut.zip", ("cut.zip",)),
        "no archive": (place / "text.zip", ("text.zip",)),
        "outside": (archive(place / "outside.zip", outside), ("../evil.png",)),
        "no images": (place / "folder", ("b",)),
        "sizes": (split_zip(place / "s.zip", **{"train|a|9.png": png((9, 9))}), ("data.size",)),
        "no image": (split_zip(place / "n.zip", **{"train|a|9.png": b"no"}), ("9.png",)),
    }


NAMES = (
    "nan", "labels", "pickle", "empty archive", "truncated archive", "no archive", "outside",
    "no images", "sizes", "no image",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_data(capsys, tiny, tmp_path, name):
    path, says = bad_files(tmp_path)[name]
    refused(capsys, {**tiny, "data.path": path}, workdir=tmp_path / "run", says=says)


def test_unwritable_workdir(capsys, tiny, tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    refused(capsys, tiny, workdir=file / "run", says=("file",))
    assert file.read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_workdir_without_permission(capsys, tiny, tmp_path):
    tmp_path.chmod(0o500)
    refused(capsys, tiny, workdir=tmp_path / "run", says=("cannot be written",))


def test_other_config_and_other_experts(capsys, tiny, tmp_path):
    store = tmp_path / "store"
    keys = {**tiny, "experts.dir": store, "max_start_epoch": 1}
    runs.run({k: str(v) for k, v in keys.items()}, tmp_path / "run", "experts")
    changed = {**keys, "lr_img": 3.5}
    err = refused(capsys, changed, workdir=tmp_path / "run", says=("config.lr_img was 10",))
    assert "nets" in err and "steps" in err  # what may change is listed
    for other, word in (
        ({"net.width": 8}, "net_options"),
        ({"data.zca": "true"}, "whitening"),
        ({"data.zca": "kip"}, "whitening"),
        ({"data.name": "other"}, "dataset"),
    ):
        refused(capsys, {**keys, **other}, workdir=tmp_path / "new", says=(str(store), word))
