"""Kept promises: a refusal changes nothing on disk, and what a message says to type works."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jdd import config, main
from jdd.errors import BadInput, Diverged
from jdd.evaluation import rules
from jdd.pretrained import train
from jdd.product import distilled_set
from jdd.product.distilled_set import DistilledSet
from jdd.run import divergence, session, workdir
from jdd.schema.experts import EXPERTS_ONLY
from jdd.stages import costs
from tests import runs

# No step and no augmentation: what is compiled for all tests here is one small net's training.
QUICK: dict[str, Any] = {
    "steps": 0, "net.name": "MLP", "nets": "MLP", "data.dsa": "none", "experts.count": 1,
    "experts.group": 1, "max_start_epoch": 1, "expert_epochs": 1, "eval.epochs": 1, "eval.n": 1,
    "eval.curve": 0, "baselines.random": 0, "baselines.full": False,
}  # fmt: skip
DECOUPLED: dict[str, Any] = {
    "squeeze.nets": "ConvNetBN", "squeeze.width": 4, "net.name": "ConvNetBN", "nets": "ConvNetBN",
    "net.depth": 1, "net.width": 4, "eval.lr": 0.01,
}  # fmt: skip


def state(folder: Path) -> dict[str, str]:
    """Return what lies in a folder: a hash of every file, '' for a folder; {} where none is."""
    found = sorted(folder.rglob("*")) if folder.exists() else []
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else ""
        for path in found
    }


def flags(keys: dict[str, Any]) -> list[str]:
    return [f"--config.{name}={value}" for name, value in keys.items()]


def refused(capsys: Any, place: Path, words: list[str], says: tuple[str, ...] = ()) -> str:
    """Call the command line, which must say one line, leave with 2 and change nothing."""
    before, there = state(place), place.exists()
    capsys.readouterr()
    code = main.main([*words, f"--workdir={place}"])
    err: str = capsys.readouterr().err
    assert code == 2 and err.startswith("jdd: error: ") and err.count("\n") == 1, err
    assert all(word in err for word in says), err
    assert state(place) == before and place.exists() == there
    return err


def typed(message: str) -> list[str]:
    """Return the flags with values that a message says to type."""
    found = re.findall(r"--(?:config\.[\w.]+|mode)=[^\s,;()]+", message)
    return [flag.rstrip(":") for flag in found]


@pytest.fixture(scope="module")
def keys(tiny):
    return {**tiny, **QUICK}


@pytest.fixture(scope="module")
def done(keys, tmp_path_factory):
    """A finished run, which no test changes."""
    place = tmp_path_factory.mktemp("promises") / "done"
    runs.run(keys, place)
    return place


def variant(done: Path, path: Path, arrays: Any = (), **recipe: Any) -> Path:
    """Save the run's set with other entries in its recipe, as they come."""
    with np.load(done / "distilled.npz") as file:
        found = dict(file)
    said = distilled_set.merge(json.loads(str(found["recipe"])), recipe)
    said["train"] |= {k: v for k, v in recipe.get("train", {}).items() if v is None}
    found |= {"recipe": np.asarray(json.dumps(said)), **dict(arrays)}
    found = {name: value for name, value in found.items() if value is not None}
    np.savez(path, **found)
    return path


def evaluation(path: Path, **more: Any) -> list[str]:
    own = {"eval.n": 1, "devices": 1, "progress": False, "baselines.random": 0} | more
    return ["--mode=evaluate", f"--set={path}", *flags(own)]


@pytest.fixture(scope="module")
def assessed(done, tmp_path_factory):
    """A set that the run has not made, and a finished evaluation of it, which no test changes."""
    place = tmp_path_factory.mktemp("assessed")
    path = variant(done, place / "good.npz", train={"lr": 0.02})
    assert main.main([*evaluation(path), f"--workdir={place / 'e'}"]) == 0
    return path, place / "e"


# --- sets ---------------------------------------------------------------------------------------

# name: (changes of the recipe, words of the message)
BAD_SETS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "rate": ({"train": {"lr": -0.5}}, ("learning rate -0.5", "--config.eval.lr=0.01")),
    "rate 0": ({"train": {"lr": 0}}, ("learning rate 0", "--config.eval.lr=0.01")),
    "rate text": ({"train": {"lr": "fast"}}, ("recipe.train.lr is 'fast'",)),
    "rates": ({"train": {"lr": [0.1, -1]}}, ("--config.eval.lr=0.01",)),
    "few rates": ({"train": {"lr": [0.1], "steps": 2}}, ("2 steps, 1 rates",)),
    "no rate": ({"arrays": {"lr": None}, "train": {"lr": None}}, ("learning rate None",)),
    "learned rate": ({"arrays": {"lr": np.asarray(-0.5)}}, ("lr is -0.5", "above 0")),
    "learned rate 0": ({"arrays": {"lr": np.asarray(0.0)}}, ("lr is 0;", "above 0")),
    "optimizer": ({"train": {"optimizer": "lion"}}, ("train.optimizer is 'lion'", "sgd, adam")),
    "momentum": ({"train": {"momentum": "most"}}, ("train.momentum is 'most'",)),
    "momentum 2": ({"train": {"momentum": 2}}, ("from 0 to 1",)),
    "decay": ({"train": {"weight_decay": -1}}, ("train.weight_decay is -1",)),
    "what decays": ({"train": {"decay": "some"}}, ("train.decay is 'some'",)),
    "batch": ({"train": {"batch": 0}}, ("train.batch is 0", "--config.eval.batch=256")),
    "batch text": ({"train": {"batch": "all"}}, ("train.batch is 'all'",)),
    "epochs": ({"train": {"epochs": -1}}, ("train.epochs is -1", "--config.eval.epochs=")),
    "epochs text": ({"train": {"epochs": "ten"}}, ("train.epochs is 'ten'",)),
    "passes": ({"train": {"passes": 1.5}}, ("train.passes is 1.5",)),
    "steps": ({"train": {"steps": -3}}, ("train.steps is -3", "--config.eval.steps=")),
    "drop": ({"train": {"drop": "late"}}, ("train.drop is 'late'",)),
    "drop factor": ({"train": {"drop": {"factor": -1}}}, ("train.drop.factor is -1",)),
    "drop keeps": ({"train": {"drop": {"reset_momentum": False}}}, ("reset_momentum is False",)),
    "schedule": ({"train": {"schedule": {"kind": "step"}}}, ("schedule.kind is 'step'",)),
    "warm-up": ({"train": {"schedule": {"kind": "warmup_cosine"}}}, ("has no warmup",)),
    "loss": ({"train": {"loss": "hinge"}}, ("train.loss is 'hinge'",)),
    "loss of views": ({"train": {"loss": "kl"}}, ("'kl' with order 'shuffled'",)),
    "order": ({"train": {"order": "shufled"}}, ("did you mean shuffled?",)),
    "order of views": ({"train": {"order": "stored", "loss": "kl"}}, ("recipe.labels is",)),
    "classwise": ({"train": {"order": "classwise"}}, ("train.per_class is 0",)),
    "classes": ({"train": {"classes_per_step": 9}}, ("classes_per_step is 9", "1 to 3")),
    "parts": ({"train": {"parts": 0}}, ("train.parts is 0",)),
    "uneven parts": ({"train": {"parts": 2}}, ("train.parts is 2",)),
    "init": ({"train": {"init": {"kind": "warm"}}}, ("init.kind is 'warm'",)),
    "init experts": ({"train": {"init": {"kind": "experts"}}}, ("has no experts",)),
    "labels": ({"labels": {"kind": "stored", "form": "soft"}}, ("labels has no store",)),
    "form": (
        {"labels": {"kind": "stored", "store": "x", "form": "soft", "teachers": []}},
        ("labels.form is 'soft'", "logits"),
    ),
    "augmentation": ({"augment": {"name": "dsaa"}}, ("augment.name is 'dsaa'", "dsa?")),
    "operation": ({"augment": {"name": "dsa", "strategy": "colr"}}, ("'colr'", "color")),
    "corners": ({"augment": {"align_corners": "yes"}}, ("align_corners is 'yes'",)),
    "net": ({"net": {"name": "MLPP"}}, ("MLPP", "MLP?")),
    "options": ({"net": {"options": {"width": "wide"}}}, ("net.width", "'wide'")),
    "seed": ({"seed": "x"}, ("recipe.seed is 'x'",)),
    "outer steps": ({"steps": "x"}, ("recipe.steps is 'x'",)),
    "deviation": ({"normalisation": {"std": 2.5}}, ("normalisation.std is 2.5",)),
    "ipc": ({"ipc": "one"}, ("recipe.ipc is 'one'",)),
    "names": ({"class_names": [1, 2, 3]}, ("recipe.class_names is",)),
    "aim": ({"objective": {"kind": "win"}}, ("objective.kind is 'win'",)),
    "attack": (
        {"objective": {"kind": "attack", "attack_class": 7, "target_class": 0}},
        ("attack_class is 7", "0 to 2"),
    ),
    "data": ({"data": {"size": "big"}}, ("data.size", "'big'")),
    "full": ({"full": {"lr": "fast"}}, ("experts.lr", "'fast'")),
    "mean": (
        {"arrays": {"mean": None}, "normalisation": {"mean": ["a", "b", "c"]}},
        ("recipe.normalisation.mean is ['a', 'b', 'c']", "a list of numbers"),
    ),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_a_refused_evaluation_changes_nothing(capsys, done, assessed, tmp_path, name):
    changes, says = BAD_SETS[name]
    path = variant(done, tmp_path / "bad.npz", **changes)
    refused(capsys, tmp_path / "new", evaluation(path), says)
    refused(capsys, assessed[1], evaluation(path))
    refused(capsys, done, evaluation(path), (f"{done} holds its own run; give --workdir=OTHER",))


def test_what_an_evaluation_says_to_type_works_in_the_same_directory(capsys, done, tmp_path):
    tried = set()
    for name, (changes, _) in BAD_SETS.items():
        path, place = variant(done, tmp_path / f"{name}.npz", **changes), tmp_path / name
        try:
            rules.validate_recipe(DistilledSet.load(path), "x")
        except BadInput as error:
            advice = typed(str(error))
        else:
            continue
        for flag in advice:
            words = evaluation(path)
            assert flag in refused(capsys, place, words)
            assert main.main([*words, flag, f"--workdir={place}"]) == 0, capsys.readouterr().err
            tried.add(flag.partition("=")[0].removeprefix("--config."))
    assert tried == {
        "eval.lr", "eval.batch", "eval.epochs", "eval.steps", "data.dsa",
    }  # fmt: skip


def test_an_evaluation_refuses_what_it_would_stumble_over_later(
    capsys, done, assessed, tmp_path, monkeypatch
):
    good, file = assessed[0], tmp_path / "file"
    file.write_text("in the way")
    dset = DistilledSet.load(good)
    few = dset._replace(images=dset.images[:2], labels=dset.labels[:2]).save(tmp_path / "few.npz")
    more = {"baselines.full": True, "data.cache_dir": file / "x", "experts.seed": 3}
    experts = {"kind": "experts", "experts": [0], "epoch": 1}
    lone = tmp_path / "lone"
    lone.mkdir()
    made_for = variant(done, lone / "set.npz", train={"init": experts})
    for words, says in (
        (evaluation(few, **{"baselines.random": 2}), ("no images of", "one of each class")),
        (evaluation(good, **more), ("config.data.cache_dir", "file cannot be written")),
        (evaluation(good, scores=True, **{"baselines.full": False}), ("--config.baselines.full",)),
        (evaluation(good, nets="MLPP"), ("MLP?",)),
        (evaluation(good, devices=99), ("config.devices",)),
        (evaluation(good, **{"data.path": "no.npz"}), ("no.npz",)),
        (evaluation(made_for), ("not in", "--config.experts.dir=")),
        (evaluation(tmp_path / "absent.npz"), ("absent.npz",)),
        (evaluation(good, **{"data.name": "other"}), ("leave out --config.data.name",)),
        (evaluation(good, **{"data.zca": "kip"}), ("leave out --config.data.zca",)),
    ):
        refused(capsys, tmp_path / "new", words, says)
        refused(capsys, assessed[1], words)
    place = tmp_path / "new"
    refused(capsys, place, evaluation(few), ("no images of",))  # without random images too
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    refused(capsys, tmp_path / "board", evaluation(good, tensorboard=True), ("jdd[tensorboard]",))
    with session.locked(assessed[1]):
        refused(capsys, assessed[1], evaluation(good), ("in use by",))


# --- what a directory holds ---------------------------------------------------------------------


def test_a_good_set_does_not_replace_a_run(capsys, done, assessed):
    for path in (assessed[0], done / "distilled.npz"):
        refused(capsys, done, evaluation(path), (f"{done} holds its own run",))


@pytest.mark.parametrize("left", ["config.json", "distilled.npz"])
def test_a_run_begun_and_a_set_alone_are_kept(capsys, done, assessed, tmp_path, left):
    shutil.copy(done / left, tmp_path)
    refused(capsys, tmp_path, evaluation(assessed[0]), ("holds its own run",))


@pytest.mark.parametrize("older", [False, True])
def test_an_evaluation_goes_on_with_its_own_set_alone(capsys, done, assessed, tmp_path, older):
    path, place = assessed[0], tmp_path / "e"
    shutil.copytree(assessed[1], place)
    if older:  # of before a directory said what it holds
        (place / "checkpoints/set.json").unlink()
    changed = variant(done, tmp_path / "good.npz", train={"lr": 0.03})
    other = {"images": np.asarray(DistilledSet.load(path).images[::-1])}
    for wrong in (changed, variant(done, tmp_path / "other.npz", other, train={"lr": 0.02})):
        refused(capsys, place, evaluation(wrong), ("another set", "--workdir=OTHER"))
    refused(capsys, place, evaluation(path, **{"eval.epochs": 3}), ("config.eval.epochs was 1",))
    kept = (place / "checkpoints/evaluate.json").read_text()
    assert main.main([*evaluation(path), f"--workdir={place}"]) == 0
    assert (place / "checkpoints/evaluate.json").read_text() == kept  # nothing measured again
    assert main.main([*evaluation(path, **{"eval.n": 2}), f"--workdir={place}"]) == 0
    assert json.loads((place / "result.json").read_text())["accuracy"]["MLP"]["n"] == 2
    assert workdir.holds_external_set(place) and not workdir.holds_run(place)


@pytest.mark.parametrize("older", [False, True])
def test_a_run_does_not_replace_an_evaluation(capsys, assessed, tmp_path, older):
    place = tmp_path / "e"
    shutil.copytree(assessed[1], place)
    if older:
        (place / "checkpoints/set.json").unlink()
    saved = config.flat(json.loads((place / "config.json").read_text()))
    same = flags({k: config.AUTO if v is None else v for k, v in saved.items() if v != ""})
    words = [word.replace("[", "").replace("]", "").replace("'", "") for word in same]
    refused(capsys, place, ["--config=mtt", *words], ("holds the evaluation of a set",))


def test_a_set_without_a_rate_is_given_one_where_an_older_jdd_had_stopped(
    capsys, done, assessed, tmp_path
):
    path = variant(done, tmp_path / "s.npz", {"lr": None}, train={"lr": None})
    place = tmp_path / "e"
    dset = DistilledSet.load(path)
    assert rules.rate(dset) is None
    place.mkdir()
    shutil.copy(assessed[1] / "config.json", place)  # eval.lr is 0 there
    own = {"fingerprint": workdir.digest(dset), "seed": 0}
    dset._replace(recipe=dset.recipe | own).save(place / "distilled.npz")
    (flag,) = typed(refused(capsys, place, evaluation(path)))
    assert flag == "--config.eval.lr=0.01"
    assert main.main([*evaluation(path), flag, f"--workdir={place}"]) == 0, capsys.readouterr().err


def test_a_run_whose_set_has_no_rate_is_given_one(capsys, done, keys, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(done, place)
    variant(done, place / "distilled.npz", {"lr": None}, train={"lr": None})
    (place / "checkpoints/evaluate.json").unlink()
    words = ["--config=mtt", *flags(keys), "--mode=evaluate"]
    (flag,) = typed(refused(capsys, place, words, ("learning rate None",)))
    assert main.main([*words, flag, f"--workdir={place}"]) == 0, capsys.readouterr().err
    assert rules.rate(DistilledSet.load(place / "distilled.npz")) == 0.01
    refused(capsys, place, [*words, "--config.eval.lr=0.02"], ("config.eval.lr was 0.01",))


def test_a_learned_rate_stays(capsys, done, keys):
    words = ["--config=mtt", *flags(keys), "--mode=evaluate", "--config.eval.lr=0.02"]
    refused(capsys, done, words, ("config.eval.lr was 0, now 0.02",))


# --- runs ---------------------------------------------------------------------------------------

OWN_MODES = ("all", "experts", "distill", "evaluate", "full", "scores", "report", "estimate")
WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "another config": ({"scores": True, "baselines.full": True, "lr_img": 3}, ("lr_img was 10",)),
    "rate of experts": ({"experts.lr": 0}, ("config.experts.lr: 0", "above 0")),
    "rate of students": ({"lr_student": 0}, ("config.lr_student: 0", "above 0")),
    "operation": ({"data.dsa": "colr"}, ("config.data.dsa", "'colr'", "color")),
    "net": ({"nets": "MLPP"}, ("MLP?",)),
    "images": ({"ipc": 99}, ("config.ipc",)),
    "data": ({"data.path": "no.npz"}, ("no.npz",)),
    "scores": ({"scores": True, "baselines.full": False}, ("--config.baselines.full=true",)),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("mode", OWN_MODES)
def test_a_refused_run_changes_nothing(capsys, done, keys, tmp_path, mode, wrong):
    change, says = WRONG[wrong]
    words = ["--config=mtt", *flags({**keys, **change}), f"--mode={mode}"]
    refused(capsys, done, words, says)
    if wrong != "another config":
        refused(capsys, tmp_path / "new", words, says)


@pytest.mark.parametrize("mode", ["all", "evaluate", "full", "scores", "report"])
def test_a_run_refuses_what_a_stage_would_stumble_over(
    capsys, done, keys, tmp_path, monkeypatch, mode
):
    file, place = tmp_path / "file", tmp_path / "run"
    file.write_text("in the way")
    words = ["--config=mtt", *flags({**keys, "baselines.full": True, "scores": True})]
    words.append(f"--mode={mode}")
    with session.locked(done):
        refused(capsys, done, words, ("--mode=full first" if mode == "scores" else "in use by",))
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tensorboardX", None)
        refused(capsys, done, [*words, "--config.tensorboard=true"], ("jdd[tensorboard]",))
    if mode in ("all", "full"):
        cache = [f"--config.data.cache_dir={file / 'x'}", "--config.nets=MLP"]
        refused(capsys, done, [*words, *cache], ("config.data.cache_dir", "cannot be written"))
        store = [f"--config.experts.dir={file / 'x'}"] * (mode == "all")
        if store:
            refused(capsys, place, [*words, *store], ("config.experts.dir", "cannot be written"))
    else:
        refused(capsys, place, words, (f"--mode={mode}", "--mode="))
    shutil.copytree(done, place)
    (place / "distilled.npz").write_bytes(b"PK\x03\x04 cut")
    refused(capsys, place, words, ("distilled.npz", "truncated"))
    shutil.copy(done / "distilled.npz", place)
    (place / "checkpoints/distill/7").mkdir()
    refused(capsys, place, words, ("config.steps: 0, and 7 are done",))


def test_what_a_mode_says_to_run_first_is_there(capsys, keys, tmp_path):
    seen = []
    for mode in ("distill", "evaluate", "report"):
        err = refused(capsys, tmp_path / "x", ["--config=mtt", *flags(keys), f"--mode={mode}"])
        seen += [flag for flag in typed(err) if flag != f"--mode={mode}"]
        assert "without --mode" in err
    assert seen == ["--mode=experts", "--mode=distill", "--mode=evaluate"]
    words = ["--config=mtt", *flags(keys), "--mode=scores"]
    (flag,) = typed(refused(capsys, tmp_path / "x", words))
    on = [*words, flag, "--config.baselines.full=true"]
    refused(capsys, tmp_path / "x", on, ("--mode=distill first",))


@pytest.mark.parametrize("mode", ["all", "squeeze", "recover", "relabel", "evaluate"])
def test_a_refused_decoupled_run_changes_nothing(capsys, tiny, tmp_path, mode):
    schema = config.schema("sre2l")
    keys = {**tiny, **DECOUPLED}
    own = {k: v for k, v in keys.items() if k in schema and k not in EXPERTS_ONLY}
    own |= {"eval.curve": 0}
    for change, says in (
        ({"squeeze.lr": 0}, ("config.squeeze.lr: 0", "above 0")),
        ({"eval.lr": 0}, ("config.eval.lr: 0, and no rate is learned", "--config.eval.lr=0.001")),
        ({"eval.epochs": 0}, ("config.eval.epochs: 0", "1 or more")),
        ({"squeeze.nets": "ConvNetBM"}, ("config.squeeze.nets", "ConvNetBN?")),
        ({"eval.curve": 2}, ("config.eval.curve",)),
        ({"relabel.mode": "map"}, ("config.relabel.mode",)),
    ):
        words = ["--config=sre2l", *flags(own | change), f"--mode={mode}"]
        err = refused(capsys, tmp_path / "x", words, says)
        if (advice := typed(err)) and mode != "all":
            name, _, value = advice[0].removeprefix("--config.").partition("=")
            runs.context({"method": "sre2l", **own, **change, name: value}, tmp_path / "x")
    if mode in ("recover", "relabel", "evaluate"):
        words = ["--config=sre2l", *flags(own), f"--mode={mode}"]
        refused(capsys, tmp_path / "x", words, (f"--mode={mode}", "first, or without --mode"))


# --- modes that read ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to={}/x.h5"], ("one of npz, png",)),
        (["--to={}/config.json/x.npz"], ("cannot be written",)),
        (["--to={}"], ("exists already",)),
        (["--to={}/new", "--format=ddrank"], ("one of npz, png",)),
        (["--to={}/x.npz", "--set={}/absent.npz"], ("absent.npz",)),
        ([], ("--to", "--mode=export")),
    ],
)
def test_a_refused_export_changes_nothing(capsys, done, words, says):
    given = [f"--set={done / 'distilled.npz'}", *(word.format(done) for word in words)]
    refused(capsys, done, ["--mode=export", *given], says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to={}/config.json"], ("ends in .html",)),
        (["--to={}/report.html"], ("is there and no comparison",)),
        (["--to={}/absent/x.html"], ("cannot be written",)),
        (["--to={}/x.html", "--runs={}/absent"], ("absent",)),
        (["--to={}/x.html", "--config.ipc=2"], ("config.ipc",)),
    ],
)
def test_a_refused_comparison_changes_nothing(capsys, done, words, says):
    before = state(done)
    given = [f"--runs={done}", *(word.format(done) for word in words)]
    assert main.main(["--mode=compare", *given]) == 2
    err = capsys.readouterr().err
    assert all(word in err for word in says) and err.count("\n") == 1, err
    assert state(done) == before


# --- advice -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "change"),
    [
        ("mtt", {"window": 2, "syn_steps": 3}),
        ("mtt", {"scores": True, "baselines.full": False}),
        ("dd", {"window": 1}),
        ("dd", {"eval.steps": 99}),
        ("random", {"eval.lr": 0}),
        ("mtt", {"nets": "VGG11"}),
    ],
)
def test_what_a_key_says_to_type_is_taken(tiny, tmp_path, method, change):
    schema = config.schema(method)
    base = {k: v for k, v in {**tiny, **QUICK}.items() if k in schema}
    found, advice = {"method": method, **base, **change}, []
    while True:
        try:
            runs.context(found, tmp_path / "x")
            break
        except BadInput as error:
            words = [flag for flag in typed(str(error)) if not flag.endswith("...")]
            assert words and words[0] not in advice, error
            advice.append(words[0])
            name, _, value = words[0].removeprefix("--config.").partition("=")
            found[name] = value
    assert advice and not (tmp_path / "x").exists()


@pytest.mark.parametrize("method", [m for m in config.bundled() if m != "quickstart"])
def test_what_a_diverged_loop_says_to_type_is_taken(method):
    others = {"gaussian": "digits,ipc=2"}
    if config.load(method).config.spec.task == "retrieval":
        others[method] = "digits_captions"
    spec = f"{method}:{others.get(method, 'digits,ipc=1')}"
    own, _ = config.resolve(config.load(spec).config)
    advice = divergence.remedies(own)
    for flag in advice:
        (flag,) = typed(flag)
        name, _, value = flag.removeprefix("--config.").partition("=")
        new, _ = config.resolve(config.load(spec, {name: value}).config)
        assert config.flat(new)[name] != config.flat(own)[name]
    assert advice


@pytest.mark.parametrize(("stage", "method"), [("experts", "mtt"), ("squeeze-X", "sre2l")])
def test_what_a_diverged_net_says_to_type_is_taken(stage, method):
    with pytest.raises(Diverged) as caught:
        train._finite(float("nan"), stage, 0, 0.05, stage.partition("-")[0])
    (flag,) = typed(str(caught.value))
    name, _, value = flag.removeprefix("--config.").partition("=")
    assert config.flat(config.load(method, {name: value}).config)[name] == 0.005


@pytest.mark.parametrize("method", ["mtt", "dd", "frepo", "ratbptt", "tesla", "ftd", "datm"])
def test_rates_of_0_are_refused_before_the_data_are_read(method):
    for name in ("experts.lr", "lr_student"):
        for value in (0, -0.1):
            with pytest.raises(BadInput, match=f"config.{name}: .*a number above 0"):
                config.load(method, {name: value})
    assert config.load(method, {"eval.lr": 0}).config.eval.lr == 0  # the learned rate


@pytest.mark.parametrize("method", ["datm", "dc", "dd", "dm", "frepo", "mtt", "ratbptt", "sre2l"])
def test_what_a_method_says_of_its_set_is_allowed(tiny, tmp_path, method):
    schema = config.schema(method)
    own = DECOUPLED | {"eval.curve": 0} if method == "sre2l" else {"net.name": "MLP"}
    keys = {k: v for k, v in {**tiny, "nets": "MLP", **own}.items() if k in schema}
    dset = costs.example(runs.context({"method": method, **keys}, tmp_path))
    rules.validate_recipe(dset, method)
    wrong = dset._replace(recipe=distilled_set.merge(dset.recipe, {"train": {"optimizer": "lion"}}))
    with pytest.raises(BadInput, match=f"{method}: recipe.train.optimizer is 'lion'"):
        rules.validate_recipe(wrong, method)
