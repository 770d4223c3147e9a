"""The benchmark of own data: CPU time of runs in parts, and failed runs, without the runs."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import pytest

from benchmarks import own_data

# Stands in for Python with jdd: burns CPU time, then ends with the status in the file ``status``.
RUN = """#!{python}
import pathlib, sys, time
while time.process_time() < 0.2:
    pass
print("the last line")
sys.exit(int(pathlib.Path({status!r}).read_text()))
"""


def test_cpu_time_is_of_all_parts_and_failed_runs_wait_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, program = tmp_path / "status", tmp_path / "python"
    program.write_text(RUN.format(python=sys.executable, status=str(status)))
    program.chmod(0o755)
    monkeypatch.setattr(own_data.sys, "executable", str(program))
    monkeypatch.setattr(own_data.own_sets, "write", lambda *words: tmp_path)
    flags = argparse.Namespace(data=tmp_path, to=tmp_path / "to", more=[], again=False)
    noted = tmp_path / "to/dm-tiny_3-0/own_data.json"

    status.write_text("130")
    with pytest.raises(SystemExit) as stopped:
        own_data.run("tiny_3", "dm", 0, flags)
    assert stopped.value.code == 130
    first = json.loads(noted.read_text())["cpu"]
    assert first >= 0.2
    status.write_text("2")  # the same command goes on
    failed = own_data.run("tiny_3", "dm", 0, flags)
    assert failed["status"] == 2 and failed["line"] == ["the last line"]
    assert failed["cpu"] >= first + 0.2
    status.write_text("0")
    assert own_data.run("tiny_3", "dm", 0, flags) == failed
    flags.again = True
    found = own_data.run("tiny_3", "dm", 0, flags)
    assert found["status"] == 0 and found["cpu"] >= failed["cpu"] + 0.2
    assert own_data.run("tiny_3", "dm", 0, flags) == found  # finished: not once more


def test_the_table_marks_what_falls_short() -> None:
    def row(method: str, name: str, values: list[float], cpu: float = 9.4) -> own_data.Row:
        about = {"method": method, "set": name, "seed": 0, "status": 0, "cpu": cpu}
        return about | {"values": values, "random": [0.4, 0.5]}

    below, above = row("dm", "tiny_3", [0.1, 0.2]), row("mtt", "tiny_3", [0.9, 0.9], cpu=181)
    failed = {"method": "dm", "set": "wide", "seed": 0, "status": 3, "cpu": 1.0}
    lines = own_data.table([below, above, failed]).splitlines()
    assert lines[0] == "| set | DM | MTT |"
    assert lines[2].endswith(
        "| **15.0 ± 5.0**, random 45.0 ± 5.0 (9) | 90.0 ± 0.0, random 45.0 ± 5.0 (**181**) |"
    )
    assert lines[3].endswith("| **1 failed** | not yet run |")
    assert lines[5:] == [
        "- DM: above random on 0 of 2 sets, below on 1; 1 of 2 runs failed",
        "- MTT: above random on 1 of 1 sets, below on 0; 0 of 1 runs failed",
    ]
