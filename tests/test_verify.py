"""``--mode=verify`` finds damage of every kind of stored file, and adds digests to older stores."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from jdd import main
from jdd.data.streamed import sums_of
from jdd.run import metric_lines, verify
from jdd.storage import checkpoints, digest_records, json_files, tree_digests
from tests.tiny_distilled import make


@pytest.fixture
def run(tmp_path):
    """One file of each kind, as runs and caches leave them."""
    (tmp_path / "experts").mkdir()
    checkpoints.save(tmp_path / "experts/g0000/e0001", {"w": np.ones((2, 40), np.float32)})
    steps = checkpoints.Steps(tmp_path / "checkpoints/distill")
    steps.save(4, {"x": np.arange(500, dtype=np.float32)})
    steps.close()
    json_files.write(tmp_path / "result.json", {"accuracy": 0.5})
    rows = [{"stage": "distill", "step": i} for i in range(3)]
    metric_lines.replace(tmp_path / "metrics.jsonl", [json.dumps(row) + "\n" for row in rows])
    make().save(tmp_path / "distilled.npz")
    part = tmp_path / "checkpoints/recover-parts/0.npy"
    part.parent.mkdir()
    digest_records.record(part, "arrays", tree_digests.of_arrays({"images": np.ones(9)}))
    np.save(part, np.ones(9))
    pixels = np.arange(4 * 48, dtype=np.uint8).reshape(4, 4, 4, 3)
    (tmp_path / "stream-a").mkdir()
    (tmp_path / "stream-a/pixels.u8").write_bytes(pixels.tobytes())
    np.savez(tmp_path / "stream-a/about.npz", shape=pixels.shape, sums=sums_of(pixels))
    return tmp_path


def call(capsys, path):
    code = main.main(["--mode=verify", f"--path={path}"])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_whole_files_are_counted(run, capsys):
    assert call(capsys, run) == (0, "8 whole\n", "")
    assert call(capsys, run / "result.json") == (0, "1 whole\n", "")
    assert call(capsys, run / "experts/g0000/e0001") == (0, "1 whole\n", "")


def test_missing_digests_are_added(run, capsys):
    places = [*run.rglob(".digests"), run / ".metrics.sums"]
    assert len(places) == 5
    for place in places:
        place.unlink()
    assert call(capsys, run) == (0, "3 whole, 5 given a digest\n", "")
    assert call(capsys, run) == (0, "8 whole\n", "")
    (run / "result.json").write_text(json.dumps({"accuracy": 0.6}, indent=1) + "\n")
    assert call(capsys, run)[0] == 2


FILES = (
    "result.json", "metrics.jsonl", "distilled.npz", "checkpoints/recover-parts/0.npy",
    "stream-a/pixels.u8", "stream-a/about.npz",
)  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", ["flip", "cut"])
def test_damage_is_named(run, capsys, name, how):
    path: Path = run / name
    data = bytearray(path.read_bytes())
    if how == "cut":
        del data[len(data) // 3 :]
    else:
        inside = data.find(b"\x93NUMPY") + 20 if name.endswith(".npz") else len(data) // 2
        data[-20 if name.endswith("y") else inside] ^= 2
    path.write_bytes(bytes(data))
    code, out, err = call(capsys, run)
    assert code == 2 and err.count("\n") == 1 and "of 8 damaged" in err
    assert any(line.startswith(f"damaged: {path}: ") for line in out.splitlines())


def test_damaged_items_are_named(run, capsys):
    for file in (p for p in (run / "experts/g0000/e0001").rglob("d/*") if p.is_file()):
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(bytes(data))
    code, out, err = call(capsys, run)
    assert code == 2 and "1 of 8 damaged" in err
    assert out.startswith(f"damaged: {run / 'experts/g0000/e0001'}: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--mode=verify"], "--path: missing"),
        (["--mode=verify", "--path=nowhere"], "nowhere does not exist"),
        (["--mode=verify", "--path="], "--path: empty"),
        (["--path=x"], "--path: given with --mode=all"),
    ],
)
def test_refusals(capsys, words, says):
    assert main.main(words) == 2
    assert says in capsys.readouterr().err


def test_nothing_of_jdds(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("hello")
    assert call(capsys, tmp_path)[0] == 2
    assert verify.words([verify.Found(tmp_path, verify.BARE)]) == ["1 without one"]
