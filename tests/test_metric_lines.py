"""Damaged lines of metrics.jsonl are left out and named; whole ones outlive a killed process."""

from __future__ import annotations

import pytest

from jdd.run import metric_lines
from jdd.run.metrics import Metrics


@pytest.fixture
def path(tmp_path):
    metrics = Metrics(tmp_path)
    for step in range(1, 7):
        metrics.log("distill", step, loss=1.5 * step)
    metrics.close()
    return tmp_path / "metrics.jsonl"


def steps(path):
    rows, note = metric_lines.read(path)
    return [row["step"] for row in rows], note


def test_an_edited_digit_is_found(path):
    text = path.read_text()
    path.write_text(text.replace('"loss": 4.5', '"loss": 4.6'))
    assert steps(path) == ([1, 2, 4, 5, 6], f"{path}: lines 1 damaged (line 3); left out.")
    path.write_text(text.replace('"loss": 9.0', '"loss": 9.1'))
    assert steps(path) == ([1, 2, 3, 4, 5], f"{path}: lines 1 damaged (line 6); left out.")


def test_every_flipped_bit_is_found(path):
    whole = path.read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 4
        path.write_bytes(bytes(changed))
        found, note = steps(path)
        assert len(found) < 6 and note, at


def test_every_cut_is_found(path):
    whole = path.read_bytes()
    for size in range(1, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert steps(path)[1], size


def test_a_killed_process_leaves_whole_lines(path):
    with path.open("a") as file:  # killed before the line's digest was written
        file.write('{"stage": "distill", "step": 7, "seconds": 1.0}\n')
    assert steps(path) == ([1, 2, 3, 4, 5, 6, 7], "")
    metric_lines.place(path).unlink()  # a run of an older version
    assert steps(path) == ([1, 2, 3, 4, 5, 6, 7], "")


def test_foreign_lines_are_counted(path):
    metric_lines.place(path).unlink()
    with path.open("ab") as file:
        file.write(
            b'[1]\n{"stage": 3, "step": 1}\n\xff\xfe\n{"stage": "x", "step": "2"}\n' + b"[" * 9999
        )
    found, note = steps(path)
    assert found == [1, 2, 3, 4, 5, 6]
    assert note == f"{path}: lines 5 damaged (line 7, 8, 9, 10, 11); left out."


def test_a_run_that_goes_on_says_so_once(path):
    path.write_text(path.read_text().replace('"step": 2', '"step": 9'))
    metrics = Metrics(path.parent)
    assert "1 damaged (line 2)" in metrics.note
    metrics.log("distill", 7)
    metrics.truncate("distill", 5)
    metrics.close()
    assert steps(path) == ([1, 3, 4, 5], "")
