"""Help: every key under its group, one key in all methods, lists, and keys without effect."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jdd import config as configs
from jdd import specs
from jdd.config.helptext import help_text
from jdd.errors import BadInput
from jdd.main import main
from jdd.nets import NAMES
from jdd.run import workdir
from jdd.schema.experts import EXPERTS_ONLY

OTHERS = ("jdd", "usage", "flags", "words", "modes", "examples")


def sections(text: str) -> dict[str, list[str]]:
    """Return the keys under each heading of a config's help."""
    parts = [part.splitlines() for part in text.split("\n\n")]
    keys = re.compile(r"  --config\.([a-z][\w.]*)=")
    return {lines[0]: [m[1] for line in lines if (m := keys.match(line))] for lines in parts}


@pytest.mark.parametrize("method", specs.names())
def test_every_key_stands_under_its_group_and_no_heading_is_empty(method: str) -> None:
    paired = specs.get(method).task == "retrieval"
    found = sections(help_text(f"{method}:{'' if paired else 'digits'}", {}))
    headed = {title: keys for title, keys in found.items() if keys}
    listed = [key for keys in headed.values() for key in keys]
    spec = specs.get(method)
    assert sorted(listed) == sorted(set(spec.keys) - set(configs.unused(spec)))
    for title, keys in headed.items():
        heads = {key.rpartition(".")[0] for key in keys}
        assert len(heads) == 1 or title.startswith("method "), title
    for title, keys in found.items():  # a heading of keys has keys
        assert keys or title.split(":")[0].split()[0] in OTHERS, title


def output(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(argv) == 0
    return capsys.readouterr().out


def test_one_key_with_its_defaults_and_published_values(capsys: Any) -> None:
    text = output(capsys, "help", "lr_img")
    assert output(capsys, "--help=lr_img") == output(capsys, "--help", "config.lr_img") == text
    assert "MTT, cifar10: ipc 1: 100, ipc 10: 100, ipc 50: 1000" in text
    assert "else 100   (DATM, FTD, MTT, TESLA)" in text and "a number, 0 or more" in text
    assert max(map(len, text.splitlines())) <= 100
    text = output(capsys, "help", "lr_img", "--config=mtt:cifar10,ipc=50")
    assert "here: 1000" in text and "DC" not in text
    assert "one of round" not in output(capsys, "help", "experts.lr")
    assert main(["help", "lr_imgg"]) == 2
    assert "did you mean config.lr_img?" in capsys.readouterr().err


def test_lists_have_a_heading_and_an_entry_each(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    lists = {"methods": specs.names(), "configs": configs.bundled(), "nets": NAMES}
    heads = {}
    for kind, names in lists.items():
        heads[kind], *lines = output(capsys, "list", kind).splitlines()
        assert all(len(line) <= 90 for line in lines), kind
        entries = [line for line in lines if not line.startswith(" ")]
        assert [line.split()[0] for line in entries] == list(names)
        assert all(len(line.split()) > 2 for line in entries)
    assert heads["methods"].startswith("methods of making a set: jdd --config=METHOD:DATASET")
    assert heads["configs"].startswith("files of settings: jdd --config=FILE")
    assert "quickstart" in heads["configs"]
    assert re.search(r"^cifar10 +32x32x3, 10 classes", output(capsys, "list", "datasets"), re.M)
    assert main(["list", "method"]) == 2
    assert "did you mean methods?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["help", "ipc"], ["list", "methods"], ["--help"]])
def test_help_waits_for_neither_jax_nor_numpy_nor_jinja(words: list[str]) -> None:
    code = f"import sys, jdd.main; jdd.main.main({words!r}); print(*sys.modules, sep='|')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "numpy", "jinja2"} & set(done.stdout.splitlines()[-1].split("|"))


def test_keys_of_experts_are_refused_where_no_experts_are_trained(
    tmp_path: Path, capsys: Any
) -> None:
    argv = ["--config=rded:digits", "--config.experts.count=5", f"--workdir={tmp_path / 'run'}"]
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "config.experts.count" in err and "MTT" in err
    assert not (tmp_path / "run").exists()
    assert main(["--config=rded:digits", "--help=experts.count"]) == 2
    for name in ("experts.lr", "experts.batch"):  # of the baseline on the whole dataset
        configs.validate_used(configs.load("rded:digits").config, [name])
    for method in ("mtt", "herding", "dd"):
        configs.validate_used(configs.load(f"{method}:digits").config, EXPERTS_ONLY)
    with pytest.raises(BadInput, match="Herding"):
        configs.validate_used(configs.load("dm:digits").config, ["experts.dir"])


def test_a_run_begun_with_such_keys_is_resumed_as_it_was(tmp_path: Path) -> None:
    begun = configs.load("dm:digits", {"experts.count": 5, "experts.sam_rho": 0.1}).config
    (tmp_path / "config.json").write_text(configs.to_json(begun))
    now = configs.as_saved(configs.load("dm:digits").config, (), tmp_path)
    assert now == begun
    workdir.validate(tmp_path, now)
    assert json.loads(configs.to_json(now)) == json.loads((tmp_path / "config.json").read_text())
    configs.validate_used(now, ["experts.count"], tmp_path)  # the same command again
    for name in ("experts.lr", "experts.count"):
        other = configs.load("dm:digits", {name: 7}).config
        with pytest.raises(BadInput, match=name):
            workdir.validate(tmp_path, configs.as_saved(other, [name], tmp_path))
