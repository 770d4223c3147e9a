"""What limits a result: each sentence by a tiny run with that fault; a healthy run has none."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from jdd import config, data
from jdd.report import diagnosis
from jdd.report.evidence import gather
from jdd.run import pipeline
from jdd.stages import limits
from tests.tiny_classes import write

BASE = {
    "data.name": "toy", "data.dsa": "none", "net.name": "MLP", "nets": "MLP", "eval.n": 3,
    "eval.epochs": 20, "eval.curve": 0, "baselines.random": 3, "baselines.full_epochs": 5,
    "experts.lr": 0.1, "experts.batch": 16, "devices": 1, "progress": False,
}  # fmt: skip
LEARNED = {"ipc": 1, "steps": 6, "batch_real": 8, "log_every": 1, "lr_img": 0.1}


@pytest.fixture(scope="module")
def run(toy, tmp_path_factory):
    """A function that runs a method once with keys and returns its result and its folder."""
    made = {}

    def once(name, method, **keys):
        if name not in made:
            place = tmp_path_factory.mktemp(name)
            given = {**BASE, "data.path": str(toy), **keys}
            given = {k: v for k, v in given.items() if v is not None}
            loaded = config.load(method, given)
            made[name] = pipeline.run(loaded, str(place), "all", None, "test"), place
        return made[name]

    return once


def check(found, place, method, *words):
    """The sentences begin with ``words``, are stored, printed and shown, and their flags exist."""
    found_words = found.get("diagnosis", [])
    assert len(found_words) == len(words), found_words
    stored = json.loads((place / "result.json").read_text())
    assert stored.get("diagnosis", []) == found_words
    page = (place / "report.html").read_text()
    for sentence, start in zip(found_words, words, strict=True):
        assert sentence.startswith(start) and sentence.endswith(".")
        assert sentence in found["summary"] and sentence in page
        flags = dict(re.findall(r"--config\.([\w.]+)=([^\s,]+)", sentence))
        spec = config.load(method, {}).config.spec
        assert all(key in spec.keys for key in flags)
        config.load(method, {k: v.rstrip(".") for k, v in flags.items()})
    return found_words


def _clipped_at(evidence, beyond, share):
    """The sentence on a set of which a share of the values is so far beyond black, or white."""
    dataset, transform = evidence.dataset, evidence.dataset.transform
    pixels = np.full(dataset.images.size, 0.5)
    out = pixels[: round(share * pixels.size)]
    out[::2], out[1::2] = -beyond, 1 + beyond
    images = (pixels.reshape(dataset.images.shape) - transform.mean) / transform.std
    images = images.astype(np.float32)
    return diagnosis._clipped(evidence._replace(dataset=dataset._replace(images=images)))


def test_a_healthy_run_has_no_sentence(run):
    found, place = run("healthy", "dm", **LEARNED)
    check(found, place, "dm")
    assert "diagnosis" not in found and found["limits"]["images"] == 60
    assert diagnosis.sentences(gather(place)) == []


def test_a_set_below_random_images_and_clipped(run):
    found, place = run("far", "dm", **LEARNED | {"lr_img": 1e4, "steps_back": 0})
    below, clipped = check(
        found, place, "dm", "This set is below random real images: ", "The images are mostly clip"
    )
    own, random = found["accuracy"]["MLP"], found["baselines"]["random"]
    assert f"{100 * own['mean']:.1f} % against {100 * random['mean']:.1f} %" in below
    assert "try --config.lr_img=1 (now 10000), with a new --workdir." in below  # dm's own rate
    assert "100.0 % of their values" in clipped
    found = _clipped_at(gather(place), beyond=1.1, share=0.6)
    assert found.startswith("The images are mostly") and "60.1 % of their values" in found
    assert _clipped_at(gather(place), beyond=1.1, share=0.4) == ""
    # As of sets that learned well: nearly all values beyond black or white, but not far.
    assert _clipped_at(gather(place), beyond=0.9, share=1.0) == ""
    # The measured spreads decide: the same set within them is not below.
    evidence = gather(place)
    wide = random | {"std": random["mean"] - own["mean"]}
    result = evidence.result | {"baselines": evidence.result["baselines"] | {"random": wide}}
    assert diagnosis._below(evidence) == below
    assert diagnosis._below(evidence._replace(result=result)) == ""


def test_weak_experts_near_chance_and_far_below_the_whole_set(run):
    keys = {"ipc": 2, "experts.count": 1, "experts.group": 1, "baselines.random": 0}
    found, place = run("weak", "herding", **keys, **{"experts.epochs": 2} | {"experts.lr": 1e-5})
    (words,) = check(found, place, "herding", "The experts are weak: ")
    assert (
        f"{100 * found['limits']['experts']:.1f} % on the test images, near chance (33.3 %)"
        in words
    )
    assert "try --config.experts.lr=0.01 (now 1e-05), with a new --workdir" in words
    few = {"experts.epochs": 1, "experts.lr": 0.01, "baselines.full_epochs": 20}
    found, place = run("few", "herding", **keys, **few)
    (words,) = check(found, place, "herding", "The experts are weak: ")
    whole = found["baselines"]["full"]["mean"]
    assert f"where an MLP trained on the whole set reaches {100 * whole:.1f} %" in words
    assert "try --config.experts.batch=6 (now 16: few steps an epoch)" in words
    # Experts of a store that another run has trained: measured, to the same figure.
    shared = {**few, "experts.dir": str(place / "experts")}
    again, elsewhere = run("shared", "herding", **keys, **shared)
    assert not any("accuracy" in row for row in gather(elsewhere).rows if row["stage"] == "experts")
    assert again["limits"]["experts"] == pytest.approx(found["limits"]["experts"])
    # The remedy: the rate and epochs of a healthy run.
    found, place = run("strong", "herding", **keys, **{"experts.epochs": 5})
    check(found, place, "herding")


def test_a_weak_teacher(run):
    keys = {
        "ipc": 1, "steps": 0, "factor": 1, "candidates": 4, "crops": 2, "squeeze.nets": "MLP",
        "squeeze.epochs": 4, "squeeze.batch": 60, "squeeze.lr": 0.01,
        "squeeze.schedule": "constant", "eval.n": 1, "eval.epochs": 2, "baselines.random": 0,
        "baselines.hard": False, "baselines.full_epochs": 20,
    }  # fmt: skip
    found, place = run("teacher", "rded", **keys)
    (words,) = check(found, place, "rded", "Teacher MLP is weak: ")
    assert f"{100 * found['teachers']['MLP']:.1f} % on the test images, where an MLP" in words
    assert "--config.squeeze.lr=" in words


def test_a_learned_rate_far_from_its_start(run):
    keys = {
        "ipc": 1, "steps": 4, "experts.count": 2, "experts.group": 2, "syn_steps": 3,
        "expert_epochs": 1, "max_start_epoch": 2, "lr_img": 0.1, "lr_lr": 1e-4,
        "baselines.random": 0, "log_every": 1,
    }  # fmt: skip
    found, place = run("grew", "mtt", **keys, lr_student=1e-5)
    (words,) = check(found, place, "mtt", "The learned rate of the students went from 1e-05 to ")
    assert found["lr"] > 1e-4 and f"--config.lr_student={found['lr']:.2g}, with a new" in words
    evidence = gather(place)

    def at(learned):
        return diagnosis._rate(evidence._replace(result=evidence.result | {"lr": learned}))

    assert at(1.1e-7) == "" and at(9e-5) == "" and at(None) == ""
    assert "students hardly move on this set; try --config.lr_lr=1e-05" in at(0.9e-7)


def test_imbalanced_labels(run, tmp_path_factory):
    small = str(write(tmp_path_factory.mktemp("data") / "small.npz", (1, 2, 60)))
    keys = {
        "ipc": 1, "data.path": small, "experts.count": 1, "experts.group": 1, "experts.batch": 8,
        "experts.epochs": 20, "baselines.random": 0,
    }  # fmt: skip
    found, place = run("small", "herding", **keys)
    (words,) = check(
        found, place, "herding", "Labels are imbalanced: 60 training images of 2 and 1 of 0"
    )
    share = found["limits"]["small_classes"]
    assert share["classes"] == 2 and share["of"] == "an expert"
    assert f"gets {100 * share['accuracy']:.1f} % of their test images right" in words
    assert "try --config.experts.balanced=true, with a new --workdir" in words
    # Balanced sampling is the remedy; a set that depends on no nets of all images has no fault.
    evidence = gather(place)
    without = {name: value for name, value in found["limits"].items() if name != "experts"}
    result = evidence.result | {"limits": without}
    assert diagnosis._imbalanced(evidence._replace(result=result)) == ""
    experts = evidence.config["experts"] | {"balanced": True}
    balanced = evidence._replace(config=evidence.config | {"experts": experts})
    assert diagnosis._imbalanced(balanced) == ""


def test_mirrored_digits(run):
    keys = {"ipc": 1, "data.name": "digits", "data.path": None, "baselines.full": False}
    found, place = run("digits", "random", **keys, **{"data.dsa": "flip_scale"})
    (words,) = check(found, place, "random", "The augmentation is unsuited: images are mirrored")
    seen = found["limits"]["mirrored"]
    assert seen["upright"] > 0.9 and seen["mirrored"] < 0.5
    assert f"for {100 * seen['mirrored']:.1f} % of mirrored test images" in words
    assert "try --config.data.dsa=scale, with a new --workdir" in words


def test_mirroring_is_judged_by_the_images(tmp_path):
    """A side that decides is found; classes of colour are the same seen in a mirror."""
    draw = np.random.default_rng(0)

    def loaded(name, paint):
        arrays = {}
        for part, n in (("train", 60), ("test", 40)):
            labels = np.arange(n) % 2
            images = draw.integers(50, 131, (n, 8, 8, 3))
            for image, label in zip(images, labels, strict=True):
                paint(image, label)
            arrays |= {f"x_{part}": images.astype(np.uint8), f"y_{part}": labels}
        np.savez(tmp_path / name, **arrays)
        return data.load({"name": "own", "path": str(tmp_path / name)})

    def side(image, label):
        image[:, 4 * label : 4 * label + 4] += 100

    def colour(image, label):
        image[..., label] += 100

    assert limits.mirrored(loaded("side.npz", side)) == {"upright": 1.0, "mirrored": 0.0, "n": 40}
    assert limits.mirrored(loaded("hue.npz", colour)) == {"upright": 1.0, "mirrored": 1.0, "n": 40}


def test_the_keys_that_mirror():
    found = diagnosis.mirroring({"data.dsa": "auto", "flip": True, "ipc": 1}, "color_flip_crop")
    assert found == {"data.dsa": "color_crop", "flip": "false"}
    views = {"data.dsa": "flip", "squeeze.augment": "rrc_flip", "relabel.flip": 0.5, "flip": 0.0}
    found = diagnosis.mirroring(views, "flip")
    assert found == {"squeeze.augment": "rrc", "relabel.flip": "0"}
    assert diagnosis.mirroring({"data.dsa": "none", "augment": "idc"}, "none") == {}


@pytest.mark.parametrize(
    "chosen, row, n, words",
    [
        (10.0, 1.0, 3, "the largest of the 3 values"),
        (0.1, 1.0, 3, "the smallest of the 3 values"),
        (1.0, 0.1, 3, ""),
        (0.1, 0.1001, 3, ""),  # the row's own, rounded
        (1.0, 0.1, 2, ""),  # of two values either is an end
    ],
)
def test_a_probe_that_chose_an_end_of_its_grid(run, chosen, row, n, words):
    _, place = run("healthy", "dm", **LEARNED)
    evidence = gather(place)
    tried = [
        {"lr_img": 0.1, "loss": 2.0},
        {"lr_img": 1.0, "loss": 1.5},
        {"lr_img": 10.0, "out": ""},
    ]
    probe = {"chosen": {"lr_img": chosen}, "row": {"lr_img": row}, "tried": tried[:n], "steps": 3}
    recipe = evidence.dataset.recipe | {"probe": probe}
    found = diagnosis._probed(evidence._replace(product=evidence.dataset.with_recipe(recipe)))
    assert words in found and bool(found) == bool(words)
    if words:
        beyond = {10.0: 100, 0.1: 0.01}[chosen]
        assert found.endswith(f"try --config.lr_img={beyond:g}, with a new --workdir.")


@pytest.mark.parametrize("method, key", [("gan", "steps"), ("dim", "gan_steps")])
def test_a_gan_below_random_images_has_the_key_of_its_own_steps(run, method, key):
    _, place = run("healthy", "dm", **LEARNED)
    values = config.flat(config.load(f"{method}:digits", {}).config)
    words = diagnosis._why_below(gather(place)._replace(config=values, rows=[]))
    steps = values[key]
    assert words == (
        "the generator may be trained too briefly; "
        f"try --config.{key}={2 * steps:g}, with a new --workdir."
    )
    config.load(method, {key: f"{2 * steps:g}"})


def test_the_loss_decides_what_to_try(run):
    _, place = run("far", "dm", **LEARNED | {"lr_img": 1e4, "steps_back": 0})
    evidence = gather(place)

    def why(losses):
        rows = [{"stage": "distill", "step": i, "loss": loss} for i, loss in enumerate(losses)]
        return diagnosis._why_below(evidence._replace(rows=rows))

    assert why(np.linspace(2, 1, 40)) == "its loss was still falling; try --config.steps=12."
    assert why([1.0] * 40).startswith("its steps may be too long; try --config.lr_img=1 ")
