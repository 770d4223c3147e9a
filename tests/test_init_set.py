"""Images that start as those of another set: converted, checked, in config, recipe and identity."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd import main
from jdd.data.transform import normalisation
from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.run import pipeline
from jdd.stages import distill
from tests import runs


def keys_of(tiny: dict[str, Any], method: str, **more: Any) -> dict[str, Any]:
    schema = configs.schema(method)
    keys = {**tiny, "method": method, "steps": 0, "eval.curve": 0, "ipc": 2}
    keys |= {"batch_real": 8, **more}  # ``runs.context`` fits nothing to the toy
    return {k: v for k, v in keys.items() if k in schema}


def made(keys: dict[str, Any], place: Path) -> DistilledSet:
    pipeline.run(configs.load("mtt", keys), str(place), "distill")
    return DistilledSet.load(place / "distilled.npz")


@pytest.fixture(scope="module")
def other(tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: real images, in another order and another space than those of the toy."""
    place = tmp_path_factory.mktemp("other")
    made(keys_of(tiny, "dm", seed=7), place)
    dset = jdd.load(place)
    transform = normalisation(np.full(3, 0.1), np.full(3, 0.5))
    images = transform.forward(dset.transform.inverse(dset.images))[::-1]
    dset._replace(images=images, labels=dset.labels[::-1], transform=transform).save(
        place / "distilled.npz"
    )
    return place


@pytest.mark.parametrize("method", ["dm", "frepo", "ratbptt"])
def test_images_start_as_those_of_the_set(
    tiny: dict[str, Any], other: Path, tmp_path: Path, method: str
) -> None:
    keys = keys_of(tiny, method, init_set=str(other), **{"data.zca": "none"})
    dset = made(keys, tmp_path)
    theirs = jdd.load(other)
    rows = np.argsort(theirs.classes_of_images, kind="stable")
    ours = dset.transform.inverse(dset.images)
    np.testing.assert_allclose(ours, theirs.transform.inverse(theirs.images)[rows], atol=1e-5)
    assert dset.classes_of_images.tolist() == [0, 0, 1, 1, 2, 2]
    assert dset.recipe["init_set"] == str(other)
    assert json.loads((tmp_path / "config.json").read_text())["init_set"] == str(other)


def test_the_identity_holds_the_set_and_a_run_without_one_says_nothing(
    tiny: dict[str, Any], other: Path, tmp_path: Path
) -> None:
    plain = runs.context(keys_of(tiny, "dm"), tmp_path)
    assert "init_set" not in json.loads(configs.to_json(plain.config))
    begun = runs.context(keys_of(tiny, "dm", init_set=str(other)), tmp_path)
    first = distill.identity(begun)
    assert first != distill.identity(plain)
    file = other / "distilled.npz"
    before = file.read_bytes()
    dset = jdd.load(file)
    dset._replace(images=dset.images + 0.01).save(file)
    assert distill.identity(begun) != first
    file.write_bytes(before)
    assert distill.identity(begun) == first


def test_a_run_goes_by_the_set_it_began_with(
    tiny: dict[str, Any], other: Path, tmp_path: Path
) -> None:
    first, place = tmp_path / "first.npz", tmp_path / "run"
    dset = jdd.load(other / "distilled.npz")
    dset.save(first)
    keys = keys_of(tiny, "dm", init_set=str(first))
    was = made(keys, place)
    dset._replace(images=dset.images + 0.01).save(first)
    assert made(keys, place).recipe == was.recipe  # finished: not made anew, not relabelled
    with pytest.raises(BadInput, match="not the set that this run began with"):
        made({**keys, "steps": 1}, place)
    first.unlink()
    context = runs.context(keys, place)  # a finished run does not need it
    assert distill.STAGE.done(context) and distill.identity(context) == was.recipe["fingerprint"]
    with pytest.raises(BadInput, match="first.npz"):
        made({**keys, "steps": 1}, place)


def test_other_real_images_at_the_same_path_are_refused(
    tiny: dict[str, Any], toy: Path, tmp_path: Path
) -> None:
    """The images made so far would take their fingerprint and normalisation."""
    data, place = tmp_path / "toy.npz", tmp_path / "run"
    arrays = dict(np.load(toy))
    np.savez(data, **arrays)
    keys = keys_of(tiny, "dm", **{"data.path": str(data)})
    made(keys, place)
    before = (place / "distilled.npz").read_bytes()
    images = {n: a // 2 if a.dtype == np.uint8 else a / 2 for n, a in arrays.items() if a.ndim == 4}
    np.savez(data, **arrays | images)
    with pytest.raises(BadInput, match="other real images than those that"):
        made({**keys, "steps": 1}, place)
    assert (place / "distilled.npz").read_bytes() == before
    np.savez(data, **arrays)
    assert made(keys, place).recipe["steps"] == 0


@pytest.mark.parametrize("case", ["ipc", "classes", "size", "absent", "empty run"])
def test_a_set_that_does_not_fit_is_one_line_and_changes_nothing(
    tiny: dict[str, Any], other: Path, tmp_path: Path, capsys: Any, case: str
) -> None:
    dset, path = jdd.load(other), tmp_path / "set.npz"
    more: dict[str, Any] = {"ipc": 3} if case == "ipc" else {}
    says = {
        "ipc": "2 images of each class", "classes": "3 classes", "size": "4x8x3",
        "absent": "set.npz", "empty run": "no set yet",
    }[case]  # fmt: skip
    if case == "classes":
        names = ["a", "b", "c"]
        dset = dset.with_recipe(dset.recipe | {"class_names": names})
    if case == "size":
        dset = dset._replace(images=dset.images[:, :4])
    if case == "empty run":
        path = tmp_path / "begun"
        path.mkdir()
        (path / "config.json").write_text("{}")
    elif case != "absent":
        dset.save(path)
    keys = keys_of(tiny, "dm", init_set=str(path), **more)
    words = [f"--config.{k}={v}" for k, v in keys.items() if k not in configs.unused(SPEC)]
    assert main.main(["--config=dm", *words, f"--workdir={tmp_path / 'run'}"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err, err
    assert not (tmp_path / "run").exists()


SPEC = configs.load("dm").config.spec


def test_the_key_is_of_methods_that_learn_images() -> None:
    for method in ("mtt", "tesla", "ftd", "datm", "dc", "dsa", "dm", "frepo", "ratbptt"):
        assert "init_set" in configs.schema(method)
    assert "init_set" not in configs.schema("random")
    assert dataclasses.replace(configs.load("mtt").config, init_set="x").init_set == "x"
