"""The notebook runs, in its smoke form, as Jupyter would: cell by cell in one namespace."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from jdd import config as configs

ROOT = Path(__file__).resolve().parents[1]
CELLS = [
    "".join(cell["source"])
    for cell in json.loads((ROOT / "notebooks/colab_tpu.ipynb").read_text("utf-8"))["cells"]
    if cell["cell_type"] == "code"
]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is displayed, by stand-ins for IPython and for Matplotlib's window."""
    import matplotlib

    matplotlib.use("agg")
    found: list[Any] = []
    display = types.ModuleType("IPython.display")
    display.__dict__.update(HTML=lambda text: text, display=found.append)
    shell = types.ModuleType("IPython")
    shell.__dict__.update(get_ipython=lambda: None, version_info=(8, 24))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr("matplotlib.pyplot.show", lambda: found.append("plot"))
    return found


def test_the_first_cell_stops_without_a_repository(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^Set REPOSITORY in this cell [^.]*\.$"):
        exec(CELLS[0], {})
    assert not list(tmp_path.iterdir())


def test_a_checkout_is_entered_and_its_config_is_known(tmp_path, monkeypatch):
    (tmp_path / "jdd").mkdir()
    (tmp_path / "jdd/pyproject.toml").touch()
    for smoke in (False, True):
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {}
        exec(CELLS[0].replace("SMOKE = False", f"SMOKE = {smoke}"), names)
        assert Path.cwd() == tmp_path / "jdd"
        exec(CELLS[2], names)
        monkeypatch.chdir(ROOT)
        configs.resolve(configs.load(names["CONFIG"], names["KEYS"]).config)


@pytest.mark.parametrize("device", ["gpu", "tpu", "cpu"])
def test_jax_is_that_of_the_device(device, monkeypatch, capsys):
    monkeypatch.delenv("TPU_NAME", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: name if device == "gpu" else None)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    if device == "tpu":
        monkeypatch.setenv("TPU_NAME", "local")
    import shutil

    names = {"shutil": shutil, "os": os, "sys": sys, "Path": Path, "SMOKE": True}
    exec(CELLS[1], names)
    assert names["JAX"] == {"gpu": "jax[cuda13]", "tpu": "jax[tpu]", "cpu": "jax"}[device]


def test_a_bucket_takes_the_place_of_drive(monkeypatch):
    colab = types.ModuleType("google.colab")
    signed: list[str] = []
    colab.__dict__["auth"] = types.SimpleNamespace(authenticate_user=lambda: signed.append("in"))
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr("subprocess.run", lambda words, check: signed.append(words[-1]))
    names: dict[str, Any] = {"Path": Path, "sys": sys, "subprocess": subprocess, "SMOKE": False}
    exec(CELLS[2].replace('BUCKET = ""', 'BUCKET = "gs://b/jdd-runs"'), names)
    assert names["WORKDIR"] == "gs://b/jdd-runs/c10" and signed == ["in", "gcsfs"]


def test_cells_are_plain_python() -> None:
    for cell in CELLS:
        ast.parse(cell)
    assert any("drive.mount" in cell for cell in CELLS)
    assert any("<iframe srcdoc" in cell for cell in CELLS)


@pytest.mark.slow
def test_every_cell_runs(tmp_path, monkeypatch, shown):
    monkeypatch.chdir(ROOT)
    names: dict[str, Any] = {}
    for cell in CELLS:
        cell = cell.replace("SMOKE = False", "SMOKE = True")
        exec(cell.replace('RUNS = Path("runs")', f"RUNS = Path({str(tmp_path)!r})"), names)
    page = next(one for one in shown if "<iframe" in one)
    assert "&lt;!doctype html&gt;" in page and shown.count("plot") == 2
    assert "in all" in names["done"].stdout
    assert set(names["found"]["accuracy"]) == {"ConvNet", "MLP"}
