"""IPC above the images of a class: refused, repeated or noise; whole runs of each family."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest

from jdd import config
from jdd.errors import BadInput
from jdd.matching import selection
from jdd.methods import d4m, datm, recovery
from jdd.run import pipeline
from tests.data.tiny_sets import refused
from tests.pins import cases
from tests.tiny_classes import write

COUNTS = (1, 2, 60)
SMALL = {"data.name": "toy", "ipc": 5, "devices": 1, "progress": False, "data.dsa": "none"}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return {**SMALL, "data.path": str(write(tmp_path_factory.mktemp("s") / "s.npz", COUNTS))}


def context(method, keys, place):
    resolved, _ = config.resolve(config.load(method, keys).config)
    return pipeline.prepare(resolved, place, "test")


CHOSEN = {
    "net.name": "MLP", "nets": "MLP", "eval.epochs": 2, "eval.n": 1, "baselines.random": 2,
    "baselines.full": False, "eval.curve": 0,
}  # fmt: skip


def test_chosen_images_are_repeated_and_the_set_is_tested_elsewhere(small, tmp_path):
    keys = {**small, **CHOSEN}

    def run(place, set_path=None, **more):
        loaded = config.load("random", {**keys, **more} if set_path is None else more)
        return pipeline.run(loaded, str(tmp_path / place), "all", set_path, "test")

    refused(lambda: run("refused"), "config.ipc", "5", "1 to 1", "or --config.ipc_short=repeat")
    assert not (tmp_path / "refused").exists()
    noise = {"ipc_short": "noise"}
    refused(lambda: run("noise", **noise), "config.ipc_short", "does not learn images", "repeat")
    found = run("own", ipc_short="repeat")
    assert found["baselines"]["random"]["n"] == 2
    saved = json.loads((tmp_path / "own" / "config.json").read_text())
    assert saved["ipc_short"] == "repeat"
    path = tmp_path / "own" / "distilled.npz"
    with np.load(path) as arrays:
        rows = json.loads(str(arrays["recipe"]))["selected"]
    assert rows[:5] == [0] * 5 and sorted(np.bincount(rows)[1:3]) == [2, 3]
    given = {k: keys[k] for k in ("data.path", "eval.n", "baselines.random", "progress")}
    there = lambda **more: run("there", str(path), **given, **more)  # noqa: E731
    refused(there, "config.baselines.random", "5 images a class", "--config.ipc_short=repeat")
    assert there(ipc_short="repeat")["accuracy"]["MLP"]["n"] == 1


def test_a_choice_by_class_is_repeated_in_its_order():
    labels = np.repeat(np.arange(3), COUNTS)
    features = np.random.default_rng(0).standard_normal((63, 4))
    for rule in (selection.herding, selection.kcenter):
        rows = selection.by_class(rule, features, labels, 3, 5, "repeat").reshape(3, 5)
        two = selection.by_class(rule, features[1:3], np.zeros(2, int), 1, 2) + 1
        assert rows[0].tolist() == [0] * 5 and rows[1].tolist() == [*two, *two, two[0]]
        assert len(set(rows[2])) == 5
        short = lambda rule=rule: selection.by_class(rule, features, labels, 3, 5)  # noqa: E731
        refused(short, "config.ipc", "1 to 1", "--config.ipc_short=repeat")


@pytest.mark.parametrize("method", ["dm", "ratbptt"])  # by the shared start, and by its own
def test_learned_images_start_repeated_or_as_noise(small, tmp_path, method):
    def start(short):
        keys = {**small, "ipc_short": short, "pix_init": "real", "data.zca": "none"}
        made = context(method, keys, tmp_path / short)
        images = np.asarray(
            made.config.spec.build(made.config, made.problem).init(0).variables["images"]
        )
        return images.reshape(3, 5, *images.shape[1:]), made.data

    repeated, loaded = start("repeat")
    own = loaded.train.images
    assert np.array_equal(repeated[0], own[[0] * 5])
    assert np.array_equal(repeated[1, 0], repeated[1, 2]) and np.array_equal(
        repeated[1, 2], repeated[1, 4]
    )
    noise, _ = start("noise")
    lacks = np.zeros((3, 5), bool)
    lacks[0, 1:] = lacks[1, 2:] = True
    assert np.array_equal(noise[~lacks], repeated[~lacks])
    drawn = noise[lacks]
    assert abs(drawn.mean()) < 0.1 and abs(drawn.std() - 1) < 0.1
    assert len({one.tobytes() for one in drawn}) == 7
    assert np.array_equal(start("noise")[0], noise)


def test_images_recovered_in_batches_start_as_noise(small, tmp_path):
    keys = {**small, "ipc_short": "noise", "pix_init": "real", "net.name": "ConvNetBN",
            "squeeze.nets": "ConvNetBN", "squeeze.width": 4}  # fmt: skip
    made = context("sre2l", keys, tmp_path)
    (of_class_1,) = (recovery.Batch(i, np.arange(5, 10)[None]) for i in (1,))
    found = np.asarray(recovery._first(made.problem, 0, of_class_1))
    own = made.data.train.images[1:3]
    assert {one.tobytes() for one in found[:2]} == {one.tobytes() for one in own}
    assert abs(found[2:].mean()) < 0.15 and abs(found[2:].std() - 1) < 0.15


def test_datm_repeats_the_images_that_experts_know():
    data = SimpleNamespace(
        train=SimpleNamespace(images=np.arange(63.0), labels=np.repeat(np.arange(3), COUNTS)),
        classes=3,
    )

    def logits(expert, images):  # right but for image 2
        label = np.repeat(np.arange(3), COUNTS)[images.astype(int)]
        return np.eye(3)[np.where(images == 2, 0, label)]

    rows, filled = datm.correct_rows(np.random.default_rng(0), logits, data, 5, 1)
    assert rows[:5].tolist() == [0] * 5 and rows[5:10].tolist() == [1, 2, 1, 2, 1]
    assert len(set(rows[10:])) == 5 and filled.tolist() == [0, 1, 0]


def test_prototypes_of_a_small_class_are_its_latents(monkeypatch):
    labels = np.repeat(np.arange(2), (2, 30))
    latents = np.random.default_rng(0).standard_normal((32, 1, 1, 3)).astype(np.float32)
    prior = d4m.Prior((1, 1, 3), lambda rows, seed, label: iter([latents[rows]]), None)
    monkeypatch.setattr(d4m, "prior_of", lambda config, problem: prior)
    own = SimpleNamespace(prototypes=0, ipc=5, km_expand=1, ref_bugs=False)
    data = SimpleNamespace(train=SimpleNamespace(labels=labels), classes=2)
    state = d4m.prototypes(own, SimpleNamespace(data=data))(0)
    centres = np.asarray(state.variables["centres"])[0]
    assert np.array_equal(centres[:2], centres[2:4]) and np.array_equal(centres[0], centres[4])
    assert {one.tobytes() for one in centres} == {one.tobytes() for one in latents[:2]}
    assert state.aux["sizes"][0].tolist() == [1] * 5 and state.aux["fitted"].tolist() == [2, 30]


def test_where_the_key_has_no_effect_or_cannot_help(small, tmp_path):
    with pytest.raises(BadInput, match="config.ipc_short: .* makes pairs.*config.pairs"):
        loaded = config.load("random_pairs", {"ipc_short": "repeat"})
        config.validate_used(loaded.config, ["ipc_short"])
    with pytest.raises(BadInput, match="config.experts.balanced: .* have no classes"):
        config.validate_used(loaded_pairs(), ["experts.balanced"])
    mix = {**small, "ipc": 1, "pix_init": "mix", "factor": 2, "data.zca": "none"}
    refused(lambda: context("ncfm", mix, tmp_path), "config.pix_init", "--config.ipc_short=repeat")
    assert context("ncfm", {**mix, "ipc_short": "repeat"}, tmp_path).config.ipc == 1


def loaded_pairs():
    return config.load("random_pairs", {}).config


EXPERTS = cases.EXPERTS
TEACHERS = {"squeeze.balanced": True, "squeeze.epochs": 12, "baselines.hard": False}
VIEWS = {k: v for k, v in cases.RECOVERED.items() if k.startswith(("squeeze", "eval", "net"))}
GAN = {
    "steps": 3, "gan.width": 3, "gan.latent": 5, "gan.batch": 6, "gan.lr": 2e-3, "gan_steps": 2,
    "match.nets": "MLP1:2", "match.lr": 2e-3, "quality.every": 0, "net.name": "MLP", "nets": "MLP",
}  # fmt: skip
PRIOR = {
    "steps": 0, "vae.steps": 4, "vae.batch": 16, "vae.channels": 2, "vae.width": 4, "vae.levels": 2,
    "quality.every": 0, "diffusion.steps": 4, "diffusion.batch": 16, "diffusion.width": 8,
    "diffusion.timesteps": 20, "sampling.steps": 5,
}  # fmt: skip
KEYS = {name: case.keys for name, case in cases.CASES.items()} | {
    "el2n": cases.CHOSEN,
    "ncfm": EXPERTS | {"batch_real": 8, "num_freqs": 32, "lr_img": 0.01, "factor": 1},
    "edc": cases.RECOVERED | TEACHERS | {"patch": 2},
    "d4m": VIEWS | TEACHERS | PRIOR,
    "dim": GAN,
}
KEYS |= {name: KEYS[name] | TEACHERS for name in ("sre2l", "gvbsm", "rded")}
KEYS["random"] = {k: v for k, v in cases.CHOSEN.items() if k not in cases.UNUSED}
FAMILIES = (
    "dc", "dm", "mtt", "tesla", "datm", "frepo", "ratbptt", "sre2l", "rded", "gvbsm", "herding",
    "kcenter", "el2n", "random", "d4m", "dim", "ncfm", "edc",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("short", ["repeat", "noise"])
@pytest.mark.parametrize("method", FAMILIES)
def test_every_family_on_classes_of_1_2_and_60_images(method, short, small, tmp_path):
    counts = (2, 3, 60) if method == "d4m" else COUNTS  # it has two images of a class, or more
    data = str(write(tmp_path / "s.npz", counts))
    keys = cases.BASE | KEYS[method] | {"ipc": 4, "ipc_short": short, "data.path": data}
    keys |= {"factor": 1} if method == "rded" else {}

    def run():
        loaded = config.load(f"{method}:toy", keys)
        return pipeline.run(loaded, str(tmp_path / "run"), "all", None, "test")

    if short == "noise" and "pix_init" not in config.load(method, {}).config.spec.keys:
        refused(run, "config.ipc_short", "does not learn images", "repeat")
        return
    (score,) = run()["accuracy"].values()
    assert 0 <= score["mean"] <= 1 and (tmp_path / "run" / "report.html").exists()
