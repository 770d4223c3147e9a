"""The command line: flags, one line for each mistake, exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from pathlib import Path

import pytest

import jdd
from jdd.errors import BadInput, Diverged, Interrupted
from jdd.main import main, split_overrides

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def pipeline(monkeypatch):
    """A pipeline that records its calls, in place of the real one."""
    fake = types.ModuleType("jdd.run.pipeline")
    fake.calls = []

    def run(loaded, workdir, mode, set_path, command, options):
        fake.calls.append((loaded, workdir, mode, set_path, command))
        return {"summary": "91.0 % reached; runs/x/report.html"}

    fake.run = run
    monkeypatch.setitem(sys.modules, "jdd.run.pipeline", fake)
    monkeypatch.setattr("jdd.run.pipeline", fake, raising=False)
    return fake


def test_flags_reach_the_pipeline(pipeline, capsys):
    argv = ["--config=configs/mtt.py:cifar10,ipc=10", "--workdir=runs/a b", "--mode", "distill"]
    argv += ["--config.lr_img", "50", "--config.nets=ConvNet,MLP", "--config.lr_img=60"]
    assert main(argv) == 0
    loaded, workdir, mode, set_path, command = pipeline.calls[0]
    assert (workdir, mode, set_path) == ("runs/a b", "distill", None)
    assert loaded.config.lr_img == 60.0 and loaded.config.nets == ("ConvNet", "MLP")
    assert {"lr_img", "nets", "ipc"} <= loaded.explicit
    assert command.startswith("python -m jdd.main --config=") and "'--workdir=runs/a b'" in command
    assert capsys.readouterr().out.splitlines()[-1].startswith("91.0 % reached")


def test_without_flags_it_is_the_quickstart(pipeline):
    assert main([]) == 0
    loaded, workdir, mode, set_path, _ = pipeline.calls[0]
    assert loaded.spec is None and loaded.config.data.name == "digits"
    assert (workdir, mode, set_path) == (None, "all", None)


def test_a_saved_set_is_evaluated_without_a_config(pipeline):
    assert main(["--mode=evaluate", "--set=a.npz", "--config.nets=ConvNet,AlexNet"]) == 0
    loaded, _, mode, set_path, _ = pipeline.calls[0]
    assert (mode, set_path, loaded.explicit) == ("evaluate", "a.npz", {"nets"})


@pytest.mark.parametrize(
    "argv, words",
    [
        (["--confg=mtt"], ["--confg", "did you mean --config?"]),
        (["-x"], ["-x", "unknown flag"]),
        (["--mode=distil"], ["--mode", "did you mean distill?"]),
        (["--mode"], ["--mode", "expected one argument"]),
        (["configs/mtt.py:cifar10"], ["--config=configs/mtt.py:cifar10?"]),
        (["--config=configs/mt.py"], ["configs/mt.py", "did you mean configs/mtt.py?"]),
        (["--config.lr_imgg=1"], ["config.lr_imgg", "did you mean config.lr_img?"]),
        (["--config.ipc"], ["config.ipc", "no value"]),
        (["--config.ipc", "--mode=all"], ["config.ipc", "no value"]),
        (["--config.ipc=0"], ["config.ipc", "1 or more"]),
        (["--config.ipc", "-3"], ["config.ipc", "-3"]),
        (["--config.=3"], ["unknown key"]),
        (["--set=a.npz"], ["--set", "--mode=evaluate"]),
        (["--workdir="], ["--workdir", "empty"]),
        (["--format=ddranking"], ["--format", "--mode=export"]),
        (["--help=3"], ["--help"]),
        (["--config.x=1", "--help"], ["config.x", "unknown key"]),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(argv, words, pipeline, capsys):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and not pipeline.calls
    assert err.startswith("jdd: error: ") and err.count("\n") == 1 and err.endswith("\n")
    for word in words:
        assert word in err


@pytest.mark.parametrize(
    "error, code",
    [
        (BadInput("data.zip", "no images", "png or jpg"), 2),
        (Diverged("step 30: loss is not finite\ntry a lower lr_img"), 3),
        (Interrupted("saved at step 7"), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(error, code, pipeline, monkeypatch, capsys):
    def run(*_):
        raise error

    monkeypatch.setattr(pipeline, "run", run)
    assert main([]) == code
    assert capsys.readouterr().err.count("\n") == 1


def test_help(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("--workdir", "estimate", "jdd --config=mtt:cifar10", "quickstart, random"):
        assert word in " ".join(text.split())  # lines are wrapped
    assert "--config.lr_img=" not in text
    assert max(map(len, text.splitlines())) <= 110


def test_help_of_a_config_shows_every_key_with_what_auto_means(capsys):
    assert main(["--config=mtt.py:cifar10", "--config.ipc=50", "--help"]) == 0
    text = capsys.readouterr().out
    for name in jdd.config.schema("mtt"):
        assert f"--config.{name}=" in text
    assert "--config.lr_img=auto   (here: 1000)" in text
    assert main(["--config=mtt.py", "--help"]) == 0


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"jdd {jdd.__version__}\n"


def test_split_overrides():
    rest, overrides = split_overrides(["--mode", "all", "--config.a", "-1", "--config.b.c=x=y"])
    assert rest == ["--mode", "all"] and overrides == {"a": "-1", "b.c": "x=y"}


def run_python(*args):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *args], capture_output=True, text=True, env=environment, timeout=60
    )


def test_module_answers_help_and_mistakes_without_jax():
    for module in ("jdd", "jdd.main"):
        done = run_python("-X", "importtime", "-m", module, "--config.ip=3")
        assert done.returncode == 2 and "did you mean config.ipc?" in done.stderr
        assert "jax" not in done.stderr.replace("jdd", "")
    assert run_python("-m", "jdd.main", "--config=mtt.py:mnist", "--help").returncode == 0


def test_import_is_light_and_an_unknown_name_is_said():
    code = "import sys, jdd, jdd.main; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert run_python("-c", code).returncode == 0
    with pytest.raises(AttributeError, match="no attribute"):
        _ = jdd.nothing_of_the_kind
    assert {"distill", "evaluate", "load"} <= set(dir(jdd))
