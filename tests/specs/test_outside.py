"""A method outside the repository: the example of docs/own-method.md, run as a user runs it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import jdd
from jdd import config, main, specs
from jdd.errors import BadInput
from jdd.methods import METHODS
from jdd.nets import generators
from jdd.product.distilled_set import DistilledSet

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "docs/examples/class_means.py"
KEYS = {
    "ipc": 2, "steps": 4, "lr_img": 0.5, "noise": 0.2, "batch_real": 8, "net.width": 4,
    "net.depth": 2, "eval.n": 2, "eval.epochs": 20, "eval.curve": 1, "eval.curve_n": 2,
    "baselines.random": 2, "baselines.full_epochs": 1, "checkpoint_every": 2, "log_every": 1,
    "devices": 1, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def words(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of a run of a copy of the example, in a folder of its own."""
    folder = tmp_path_factory.mktemp("mine")
    shutil.copy(EXAMPLE, folder / "class_means.py")
    keys = {**KEYS, "data.name": "toy", "data.path": str(toy)}
    flags = [f"--config.{name}={value}" for name, value in keys.items()]
    return [f"--config={folder / 'class_means.py'}", *flags]


@pytest.fixture(scope="module")
def done(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of it."""
    place = tmp_path_factory.mktemp("runs") / "a"
    assert main.main([*words, f"--workdir={place}"]) == 0
    return place


def test_the_page_shows_the_example() -> None:
    page = (ROOT / "docs/own-method.md").read_text(encoding="utf-8")
    code = EXAMPLE.read_text(encoding="utf-8")
    assert code in re.findall(r"```python\n(.*?)```", page, re.S) and code.count("\n") < 100


def test_no_file_of_the_package_knows_of_it(done: Path) -> None:
    names = [path for path in (ROOT / "jdd").rglob("*.py") if "class_means" in path.read_text()]
    assert not names and "class_means" not in METHODS and "class_means" not in specs.names()
    assert json.loads((done / "config.json").read_text())["method"] == "class_means"


def test_help_lists_its_keys(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([words[0] + ":digits", "--help"]) == 0
    text = capsys.readouterr().out
    assert "method Class means:\n  --config.lr_img=auto   (here: 1)" in text
    assert (
        "--config.noise=0.1\n        deviation of the noise at the start; a number, 0 or more"
        in text
    )


def test_a_mistyped_key_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([*words, "--config.nois=1"]) == 2
    assert "did you mean config.noise?" in capsys.readouterr().err
    assert main.main([*words, "--config.noise=-1"]) == 2
    assert "config.noise: -1; expected a number, 0 or more" in capsys.readouterr().err


def test_it_runs_and_reports(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dset = DistilledSet.load(done / "distilled.npz")
    assert dset.images.shape == (6, 8, 8, 3) and dset.recipe["method"] == "class_means"
    result = json.loads((done / "result.json").read_text())
    assert result["title"] == "Class means" and 0 <= result["accuracy"]["ConvNet"]["mean"] <= 1
    assert "Class means" in (done / "report.html").read_text()


def test_it_resumes_to_the_same_bits_and_more_steps(
    words: list[str], done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [f"--workdir={tmp_path / 'b'}"]
    assert main.main([*words, *place, "--mode=distill", "--config.steps=2"]) == 0
    assert main.main([*words, *place, "--mode=distill"]) == 0
    a, b = (DistilledSet.load(path / "distilled.npz") for path in (done, tmp_path / "b"))
    assert (a.images == b.images).all()
    assert main.main([*words, *place, "--config.noise=0.3"]) == 2
    assert "config.noise was 0.2, now 0.3" in capsys.readouterr().err
    assert main.main([*words, f"--workdir={done}", "--mode=report"]) == 0


def test_it_is_estimated_compared_and_called(
    words: list[str], done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], toy: Path
) -> None:
    assert main.main([*words, "--mode=estimate", f"--workdir={tmp_path / 'e'}"]) == 0
    assert re.search(r"^distill ", capsys.readouterr().out, re.M)
    keys: dict[str, Any] = {**KEYS, "data.name": "toy", "data.path": str(toy)}
    found = jdd.distill(words[0].removeprefix("--config="), done, **keys)  # finished: no step
    assert (found.images == DistilledSet.load(done / "distilled.npz").images).all()
    page = tmp_path / "compare.html"
    shutil.copytree(done, tmp_path / "twin")
    assert main.main(["--mode=compare", f"--runs={done},{tmp_path / 'twin'}", f"--to={page}"]) == 0
    assert "Class means" in page.read_text()


def test_its_set_is_evaluated_with_its_keys_or_the_common_ones(
    words: list[str], done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--mode=evaluate", f"--set={done / 'distilled.npz'}", "--config.eval.n=1"]
    asked += ["--config.baselines.random=0", "--config.devices=1", "--config.progress=false"]
    assert main.main([*asked, f"--workdir={tmp_path / 'common'}"]) == 0
    saved = json.loads((tmp_path / "common/config.json").read_text())
    assert saved["method"] == "class_means" and list(saved) == _groups(config.COMMON)
    assert main.main([*asked, f"--workdir={tmp_path / 'common'}"]) == 0  # goes on
    assert main.main([*asked, "--config.noise=0.3", f"--workdir={tmp_path / 'x'}"]) == 2
    assert "config.noise: unknown key" in capsys.readouterr().err
    own = [words[0], *asked, "--config.noise=0.3", f"--workdir={tmp_path / 'own'}"]
    assert main.main(own) == 0
    assert json.loads((tmp_path / "own/config.json").read_text())["noise"] == 0.3
    result = jdd.evaluate(
        done / "distilled.npz", tmp_path / "api", words[0].removeprefix("--config="),
        noise=0.3, devices=1, progress=False, eval={"n": 1}, baselines={"random": 0},
    )  # fmt: skip
    assert result["method"] == "class_means"


def _groups(keys: Any) -> list[str]:
    """Return the top-level names of config.json; keys at their default may be absent from it."""
    named = (name for name, key in keys.items() if not key.sparse)
    return list(dict.fromkeys(name.partition(".")[0] for name in named))


GENERATOR = """
from jdd.methods import gaussian
from jdd.nets import generators
from jdd.specs import Spec
from jdd.specs.gaussian import Config, validate


def halved(shape, classes, latent):
    own = generators.gaussian(shape, classes, latent)
    return own._replace(apply=lambda params, z, labels: own.apply(params, z, labels) / 2)


def make(config, problem):
    method = gaussian.make(config, problem)

    def distilled(state, steps):
        made = method.distilled(state, steps)
        return made._replace(architecture=made.architecture | {"name": "halved"})

    return method._replace(distilled=distilled)


SPEC = Spec(
    "halves", make, config=Config, validate=validate, defaults={"steps": 0, "eval.lr": 0.01},
    stages=("distill", "evaluate", "report", "full"), generators={"halved": halved},
)
"""


def test_a_generator_of_its_own_is_read_with_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generators, "_REGISTERED", {})
    own, place = tmp_path / "halves.py", tmp_path / "a"
    own.write_text(GENERATOR)
    few = {"eval": {"n": 1, "epochs": 1}, "baselines": {"random": 0, "full": False}}
    keys: dict[str, Any] = {"ipc": 2, "per_class": 2, "nets": "MLP", "progress": False, **few}
    keys |= {"quality.images": 0}
    made = jdd.distill(f"{own}:digits", place, **keys, **{"net.name": "MLP"})
    assert made.kind == "generator" and (place / "report.html").exists()
    images = np.asarray(made.images(jax.random.key(0)))  # type: ignore[union-attr]
    generators._REGISTERED.clear()  # as in another process
    path = place / "distilled.npz"
    with pytest.raises(
        BadInput, match="generator 'halved'; one of gaussian, .*; .*config='my_meth"
    ):
        jdd.load(path)
    asked = ["--mode=evaluate", f"--set={path}", f"--workdir={tmp_path / 'b'}"]
    asked += ["--config.eval.epochs=1", "--config.eval.n=1", "--config.baselines.random=0"]
    assert main.main(asked) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "generator 'halved'" in error
    assert main.main([*asked, f"--config={own}", "--config.progress=false"]) == 0
    generators._REGISTERED.clear()
    again = jdd.load(path, config=str(own))
    assert (np.asarray(again.images(jax.random.key(0))) == images).all()  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="that no architecture of jdd has"):
        generators.register("gaussian", generators.gaussian)
