"""dev.py, the README's two commands, without installing anything."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]


def dev() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("jdd_dev", ROOT / "dev.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dev_py_can_be_read_by_an_old_python() -> None:
    ast.parse((ROOT / "dev.py").read_text(encoding="utf-8"), feature_version=(3, 7))


def test_dev_py_refuses_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = dev()
    monkeypatch.setattr(module, "NEWER", ())
    monkeypatch.setattr(module, "OLDEST", (99, 0))
    with pytest.raises(module.Stop, match="Python 3.11 or newer"):
        module.main(["test"])
    monkeypatch.undo()

    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "stamp")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(module.Stop, match="apt install python3.*-venv"):
        module.set_up()
    (tmp_path / ".venv").mkdir()
    with pytest.raises(module.Stop, match="not made by dev.py"):
        module.set_up()


def test_dev_py_installs_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = dev()
    venv, calls = tmp_path / ".venv", []

    def quietly(command: list[str]) -> tuple[int, str]:
        calls.append(command[2])
        venv.mkdir(exist_ok=True)
        return (0, "") if calls != ["venv", "pip"] else (7, "no network")

    monkeypatch.setattr(module, "VENV", venv)
    monkeypatch.setattr(module, "STAMP", venv / "stamp")
    monkeypatch.setattr(module, "quietly", quietly)
    monkeypatch.setattr(module, "works", lambda python: True)
    with pytest.raises(module.Stop) as stop:
        module.set_up()
    assert stop.value.code == 7
    module.set_up()
    module.set_up()
    assert calls == ["venv", "pip", "venv", "pip"]
    monkeypatch.setattr(module, "stamp", lambda: "another pyproject")
    module.set_up()
    assert len(calls) == 6
    module.set_up("docs")
    module.set_up("docs")
    assert calls[6:] == ["pip"]


def test_dev_py_stops_at_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    module, ran = dev(), []

    def call(command: list[str], **options: object) -> int:
        ran.append(command[2:])
        return 3 if "mypy" in command else 0

    monkeypatch.setattr(module, "set_up", lambda: None)
    monkeypatch.setattr(module, "quick_flags", list)
    monkeypatch.setattr(module.subprocess, "call", call)
    assert module.main(["test"]) == 3
    assert [step[0] for step in ran] == ["ruff", "ruff", "mypy"]
    ran.clear()
    assert module.main(["test", "--", "-k", "one"]) == 0
    assert ran == [["pytest", "-m", "not slow", "-k", "one"]]
    ran.clear()
    assert module.main(["test", "--slow", "--", "-x"]) == 0
    assert ran == [["pytest", "-x"]]


@pytest.mark.parametrize("slow", [[], ["--slow"]])
def test_tests_but_the_slow_ones_compile_quickly(
    monkeypatch: pytest.MonkeyPatch, slow: list[str]
) -> None:
    module, flags = dev(), []

    def call(command: list[str], **options: Any) -> int:
        flags.append(options["env"].get("XLA_FLAGS"))
        return 0

    monkeypatch.setenv("XLA_FLAGS", "--xla_own=1")
    monkeypatch.setattr(module, "set_up", lambda: None)
    monkeypatch.setattr(module, "quick_flags", lambda: ["--xla_a=0", "--xla_b=1"])
    monkeypatch.setattr(module.subprocess, "call", call)
    assert module.main(["test", *slow, "--", "-x"]) == 0
    assert flags == ["--xla_own=1" if slow else "--xla_own=1 --xla_a=0 --xla_b=1"]


def test_xla_is_given_no_flag_that_it_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    module, programs = dev(), []

    def call(command: list[str], **options: object) -> int:
        programs.append(command[2])
        return len(programs) - 1  # the option is known, then it is not

    monkeypatch.setattr(module.subprocess, "call", call)
    both = ["--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"]
    assert module.quick_flags() == both
    assert module.quick_flags() == both[:1]
    with pytest.raises(jax.errors.JaxRuntimeError, match="No such compile option"):
        exec(programs[0].replace("use_fusion", "have_fusion"), {})


def test_a_torn_entry_of_the_shared_cache_is_compiled_again() -> None:
    cache = Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
    shortest = "jax_persistent_cache_min_compile_time_secs"

    def answer() -> float:
        def torn_entry(x: jax.Array) -> jax.Array:
            return x * 3 + 1

        return float(jax.jit(torn_entry)(2.0))

    before = getattr(jax.config, shortest)
    jax.config.update(shortest, 0.0)
    try:
        assert answer() == 7
        (entry,) = cache.glob("jit_torn_entry-*-cache")
        entry.write_bytes(entry.read_bytes()[:20])
        assert answer() == 7
    finally:
        jax.config.update(shortest, before)
        for path in cache.glob("jit_torn_entry-*"):
            path.unlink()


def test_dev_py_builds_the_docs_strictly(monkeypatch: pytest.MonkeyPatch) -> None:
    module, ran = dev(), []

    def call(command: list[str], **options: object) -> int:
        ran.append(command[2:])
        return len(ran) - 1

    monkeypatch.setattr(module, "set_up", lambda extra: ran.append([extra]))
    monkeypatch.setattr(module.subprocess, "call", call)
    assert module.main(["docs"]) == 1
    assert ran == [["docs"], ["mkdocs", "build", "--strict", "--quiet"]]
    with pytest.raises(module.Stop, match="no arguments"):
        module.main(["docs", "serve"])


def test_dev_py_answers_from_anywhere(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, str(ROOT / "dev.py"), "tset"], cwd=tmp_path, capture_output=True, text=True
    )
    assert found.returncode == 2
    assert (
        found.stderr == "dev.py: error: 'tset' is no command; there are: quickstart, test, docs\n"
    )


def test_ci_runs_the_readme_command() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == ["python3 dev.py test", "python3 dev.py docs"]
    assert "set -euo pipefail" in lines  # the first failure ends it
