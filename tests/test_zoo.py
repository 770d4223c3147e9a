"""The zoo: its sets are whole and found by name, its page is of its files, the wheel has it."""

from __future__ import annotations

import doctest
import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import jdd
from jdd import data, main
from jdd.data.catalogue import CATALOGUE, Facts
from jdd.data.transform import NAMES
from jdd.data.whitening_fit import left_out
from jdd.errors import BadInput
from jdd.evaluation.space import in_space_of
from jdd.methods import initial_set
from jdd.product import distilled_set
from jdd.product.distilled_set import DistilledSet
from jdd.run import external_sets
from jdd.storage import zoo
from tests.test_repository import ROOT, script

PAGE = script("zoo")
DIGITS = "mtt-digits-ipc1"
SETS = sorted(path.name for path in PAGE.SETS.iterdir())
FILES = {PAGE.SET, *PAGE.TEXTS}


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_small_and_names_its_recipe(name: str) -> None:
    folder = PAGE.SETS / name
    assert {path.name for path in folder.iterdir()} == FILES
    assert sum(path.stat().st_size for path in folder.iterdir()) <= PAGE.LARGEST
    dset = jdd.load(f"zoo:{name}")
    recipe = dset.recipe
    assert name.startswith(f"{recipe['method']}-{recipe['dataset']}-")
    assert CATALOGUE[recipe["dataset"]].licence and recipe["train"]["epochs"] and recipe["command"]
    assert dset.result["accuracy"] or dset.result["metrics"]
    texts = [(folder / text).read_text() for text in PAGE.TEXTS]
    assert [PAGE.without_paths(text) for text in texts] == texts
    assert PAGE.portable(recipe) == recipe
    new = PAGE.read(folder)  # as of a run: its name and its bytes
    assert new.name == name
    assert new.files == {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(
    "path, hint",
    [("zoo:mtt-digit-ipc1", f"did you mean zoo:{DIGITS}? "), ("zoo:", ""), ("zoo:../sets/x", "")],
)
def test_an_unknown_name_is_answered_with_those_there_are(path: str, hint: str) -> None:
    with pytest.raises(BadInput) as error:
        jdd.load(path)
    between = f"; {hint}" if hint else " "
    assert str(error.value) == f"{path}: no such set{between}(the zoo has: {', '.join(SETS)})"


def test_a_set_is_listed_exported_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # a line a set
    assert main.main(["list", "sets"]) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"zoo:{name}" for name in SETS]
    export = ["--mode=export", f"--set=zoo:{DIGITS}", "--to=a.npz"]
    assert main.main(export) == 0
    assert np.array_equal(jdd.load("a.npz").images, jdd.load(f"zoo:{DIGITS}").images)
    shutil.copytree(zoo.local(f"zoo:{DIGITS}"), "mine")
    found = jdd.compare(f"mine,zoo:{DIGITS}")
    assert [run["run"] for run in found["groups"][0]["runs"]] == ["mine", DIGITS]


def test_the_page_and_its_pictures_are_those_of_the_sets() -> None:
    assert PAGE.PAGE.read_text() == PAGE.page(), "run: python docs/zoo.py"
    assert sorted(path.stem for path in PAGE.PICTURES.iterdir()) == SETS
    for name in SETS:
        data = (PAGE.SETS / name / PAGE.SET).read_bytes()
        assert PAGE.shows(PAGE.PICTURES / f"{name}.png", data), name


def edited(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return a function that changes the result of a run."""

    def edit(run: Path) -> None:
        result = json.loads((run / "result.json").read_text())
        change(result)
        (run / "result.json").write_text(json.dumps(result))

    return edit


def of_flowers(run: Path) -> None:
    edited(lambda result: result.update(dataset="flowers"))(run)


def labelled(run: Path) -> None:
    dset = jdd.load(run)
    labels = {"labels": {"kind": "stored", "store": "labels/set"}}
    dset.with_recipe(dset.recipe | labels).save(run / PAGE.SET)


def evaluation(run: Path) -> None:
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "set.json").write_text('{"digest": "0"}')


def large(run: Path) -> None:
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"words": "a" * PAGE.LARGEST}) + "\n")


@pytest.mark.parametrize(
    "change, words",
    [
        (shutil.rmtree, "no such folder"),
        (lambda run: (run / PAGE.SET).unlink(), "its set is not finished"),
        (lambda run: (run / "unfinished.npz").touch(), "its set is not finished"),
        (lambda run: (run / "result.json").unlink(), "the set has not been evaluated"),
        (edited(lambda result: result.update(accuracy={})), "no accuracy"),
        (edited(lambda result: result.update(steps=9)), "of steps 9, the set of 250"),
        (
            edited(lambda result: result["versions"].update(commit="57cc142-dirty")),
            "from a checkout without any: jdd --mode=report --workdir=",
        ),
        (of_flowers, "flowers, whose licence is not known"),
        (labelled, "a set of stored labels"),
        (evaluation, "the evaluation of a set"),
        (large, "1 MB at most"),
    ],
)
def test_a_run_that_cannot_be_in_the_zoo_is_refused(
    tmp_path: Path, change: Callable[[Path], object], words: str
) -> None:
    run = tmp_path / "run"
    shutil.copytree(PAGE.SETS / DIGITS, run)
    change(run)
    with pytest.raises(BadInput) as error:
        PAGE.read(run)
    assert words in str(error.value)


def test_a_run_is_added_without_the_paths_of_its_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, command = tmp_path / "run", "jdd --config=mtt:digits --workdir={}runs/a --n=a/b"
    shutil.copytree(PAGE.SETS / DIGITS, run)
    edited(lambda result: result.update(command=command.format("/home/me/")))(run)
    dset = jdd.load(run)
    where = dset.recipe["data"] | {"path": "/home/me/digits.npz", "source": "npz"}
    dset.with_recipe(dset.recipe | {"data": where}).save(run / PAGE.SET)
    for name in ("SETS", "PAGE", "PICTURES"):
        monkeypatch.setattr(PAGE, name, tmp_path / "zoo" / name)
    assert PAGE.main([str(run), str(tmp_path / "none")]) == 2  # nothing is written
    assert "no such folder" in capsys.readouterr().err and not PAGE.SETS.exists()
    PAGE.PICTURES.mkdir(parents=True)
    (PAGE.PICTURES / "gone.png").touch()
    PAGE.PAGE.write_text(f"# The zoo\n\n{PAGE.MARK} of before")
    assert PAGE.main([str(run)]) == 0
    added = jdd.load(PAGE.SETS / DIGITS)
    assert added.recipe["data"] == where | {"path": "", "source": "auto"}
    assert added.result["command"] == "jdd --config=mtt:digits --workdir=a --n=a/b"
    assert np.array_equal(added.images, dset.images)
    assert [path.name for path in PAGE.PICTURES.iterdir()] == [f"{DIGITS}.png"]
    text = PAGE.PAGE.read_text()
    assert text.startswith(f"# The zoo\n\n{PAGE.MARK}\n\n| set |") and f"## {DIGITS}" in text


def test_paths_are_cut_and_other_slashes_remain() -> None:
    found = doctest.testmod(PAGE)
    assert found.attempted and not found.failed


def whitened(folder: Path, real: str, count: int) -> DistilledSet:
    """Return a whitened set of three of the images in a new file ``real``, with its recipe."""
    draw = np.random.default_rng(count)
    arrays = {"x_train": draw.integers(0, 256, (count, 4, 4, 3), np.uint8)}
    arrays |= {"x_test": arrays["x_train"][:6], "y_train": np.arange(count) % 3}
    np.savez(folder / real, **arrays, y_test=np.arange(6) % 3)
    keys = {"name": "toy", "path": str(folder / real), "source": "npz", "zca": "kornia"}
    dataset = data.load(keys)
    recipe = distilled_set.make_recipe(
        **{"dataset": "toy", "class_names": dataset.class_names, "data": keys},
        whitening=NAMES["kornia"],
        data_fingerprint=dataset.fingerprint,
    )
    images = dataset.train.images[:3]
    return DistilledSet(images, np.arange(3), "hard", 0.1, recipe, dataset.transform)


def test_a_whitening_that_is_left_out_is_fitted_to_the_real_images(tmp_path: Path) -> None:
    whole, other = whitened(tmp_path, "a.npz", 60), whitened(tmp_path, "b.npz", 66)
    bare = whole._replace(transform=left_out("kornia", (4, 4, 3), whole.transform))
    path = bare.save(tmp_path / "set.npz")
    unfit, dataset = external_sets._read(path, {}, {})
    found = external_sets._fitted(unfit, dataset)
    assert np.array_equal(found.transform.zca_matrix, whole.transform.zca_matrix)
    assert found.notes == () and in_space_of(found, dataset.test, dataset) is dataset.test
    keys = {"data.path": str(tmp_path / "b.npz")}
    found = external_sets._fitted(*external_sets._read(path, {}, keys))
    assert np.array_equal(found.transform.zca_matrix, other.transform.zca_matrix)
    assert "not those that it was made from" in found.notes[0]
    # As images to start from: those of the same data are in the same space, others are refused.
    config = jdd.make_config("dm:toy", data={"path": str(tmp_path / "a.npz")}, init_set=str(path))
    assert np.array_equal(initial_set.read(config, dataset), whole.images)
    with pytest.raises(BadInput, match="left out of its file"):
        initial_set.read(config, data.load(dict(whole.recipe["data"], zca="none")))


@pytest.mark.parametrize("bare", [True, False])
def test_an_evaluation_measures_changed_images_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], bare: bool
) -> None:
    dset, place = whitened(tmp_path, "a.npz", 60), tmp_path / "e"
    if bare:
        dset = dset._replace(transform=left_out("kornia", (4, 4, 3), dset.transform))
    own = {"nets": "MLP", "eval.epochs": 1, "eval.n": 1, "baselines.random": 0}
    words = [f"--config.{key}={value}" for key, value in own.items()]
    path = dset.save(tmp_path / "set.npz")
    command = ["--mode=evaluate", f"--set={path}", f"--workdir={place}", *words]

    def printed() -> str:
        assert main.main(command) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    first = printed()
    measured = (place / "checkpoints" / "evaluate.json").read_bytes()
    matrix = jdd.load(place).transform.zca_matrix
    assert "measured anew" not in first + printed()
    assert (place / "checkpoints" / "evaluate.json").read_bytes() == measured
    other = whitened(tmp_path, "b.npz", 66).transform.zca_matrix
    (tmp_path / "b.npz").replace(tmp_path / "a.npz")
    assert "have changed since the last command: measured anew" in printed()
    assert (place / "checkpoints" / "evaluate.json").read_bytes() != measured
    assert np.array_equal(jdd.load(place).transform.zca_matrix, other if bare else matrix)
    figures = ["--mode=export", "--format=png", f"--to={tmp_path / 'pictures'}"]
    assert main.main([*figures, f"--set={path}"]) == 2 * bare
    assert not bare or "--mode=evaluate --set=... writes the set" in capsys.readouterr().err
    assert not bare or main.main([*figures, f"--set={place}"]) == 0


def test_the_matrix_of_a_whitening_is_not_added(tmp_path: Path) -> None:
    run, white = tmp_path / "run", whitened(tmp_path, "a.npz", 60).transform
    shutil.copytree(PAGE.SETS / DIGITS, run)
    dset = jdd.load(run)
    recipe = dset.recipe | {"whitening": NAMES["kornia"]}
    images = np.zeros((10, 4, 4, 3), np.float32)
    dset._replace(images=images, recipe=recipe, transform=white).save(run / PAGE.SET)
    new = PAGE.read(run)
    assert new.product.transform.fitted  # its picture shows pixels
    (tmp_path / "set.npz").write_bytes(new.files[PAGE.SET])
    added = jdd.load(tmp_path / "set.npz")
    assert not added.transform.fitted and np.array_equal(added.images, images)
    assert added.recipe == jdd.load(run).recipe
    (tmp_path / "added").mkdir()
    for name, content in new.files.items():
        (tmp_path / "added" / name).write_bytes(content)
    jdd.compare([str(run), str(tmp_path / "added")], tmp_path / "compare.html")
    page = (tmp_path / "compare.html").read_text()
    assert "leave out the whitening: added." in page


# The wheel.


def run(words: list[str | Path], place: Path) -> str:
    """Run a command in ``place``, away from the checkout; return its output."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=place, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an environment with jdd's wheel, and the packages that jdd needs."""
    place = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    # Not by ``run``: the package that builds wheels is one of this environment.
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={place}", str(ROOT)]
    subprocess.run(build, check=True)
    venv, (wheel,) = place / "venv", place.glob("*.whl")
    run([sys.executable, "-m", "venv", "--without-pip", venv], place)
    run([*pip, f"--python={venv}", "install", "--no-deps", "--no-index", wheel], place)
    packages = next((venv / "lib").glob("python*/site-packages"))
    # Of the present environment, its packages alone: its own jdd is a .pth, which is not read here.
    lines = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    (packages / "present.pth").write_text("\n".join(sorted(lines)))
    return venv


def stand_in(facts: Facts, path: Path) -> None:
    """Write a few images of the shape and classes of a dataset, which itself is not here."""
    draw, arrays = np.random.default_rng(0), {}
    for split, each in (("train", 4), ("test", 2)):
        labels = np.repeat(np.arange(facts.classes), each)
        arrays[f"y_{split}"] = labels
        arrays[f"x_{split}"] = draw.integers(0, 256, (len(labels), *facts.shape), np.uint8)
    np.savez(path, **arrays)


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_an_installed_jdd_evaluates_every_set(installed: Path, tmp_path: Path) -> None:
    sets = [f"zoo:{name}" for name in SETS]
    code = f"import json, jdd; print(json.dumps([jdd.__file__, *map(repr, map(jdd.load, {sets}))]))"
    where, *shown = json.loads(run([installed / "bin" / "python", "-c", code], tmp_path))
    package = Path(where).parent
    assert package.is_relative_to(installed)
    assert shown == [repr(jdd.load(name)) for name in sets]
    assert {path.name for path in (package / "sets").iterdir()} == set(SETS)
    before = digests(package / "sets")
    for name in SETS:
        facts, own = CATALOGUE[jdd.load(f"zoo:{name}").recipe["dataset"]], []
        if facts.source != "digits":
            stand_in(facts, tmp_path / f"{name}.npz")
            own = [f"--config.data.path={name}.npz", "--config.data.source=npz"]
        short = ["--config.eval.epochs=3", "--config.eval.n=1", "--config.baselines.random=1"]
        command = [installed / "bin" / "jdd", "--mode=evaluate", f"--set=zoo:{name}", *short, *own]
        assert "Report: runs/" in run(command, tmp_path)
        result = json.loads((tmp_path / f"runs/evaluate-{name}-distilled/result.json").read_text())
        (score,) = (result.get("metrics") or result["accuracy"]).values()
        assert score["n"] == 1 and 0 <= score["mean"] <= 1
    assert digests(package / "sets") == before
