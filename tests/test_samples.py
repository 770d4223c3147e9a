"""What is seen of a prior while it trains: pictures, a curve of quality; the same bits without."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jdd import config as configs
from jdd.errors import BadInput
from jdd.run import pipeline
from jdd.run.metrics import read
from jdd.stages import phases, samples
from tests import toy_prior
from tests.test_phases import prior_of
from tests.test_phases import same as same_set

FILE = Path(toy_prior.__file__)


@pytest.fixture(scope="module")
def keys(tiny, tmp_path_factory):
    kept = {k: v for k, v in tiny.items() if k in configs.COMMON and not k.startswith("experts.c")}
    return kept | {
        "steps": 2, "prior_steps": 4, "eval.epochs": 1, "eval.n": 1, "eval.curve": 0,
        "baselines.random": 0, "baselines.full": False, "net.name": "MLP", "nets": "MLP",
        "data.dsa": "none", "quality.k": 2,
        "data.cache_dir": str(tmp_path_factory.mktemp("cache")),
    }  # fmt: skip


def go(keys, place, mode="all"):
    return pipeline.run(configs.load(str(FILE), keys), str(place), mode, None, "test")


@pytest.fixture(scope="module")
def seen(keys, tmp_path_factory):
    place = tmp_path_factory.mktemp("seen")
    return place, go(keys, place)


def rows(place, stage="quality-prior"):
    return {r["step"]: r for r in read(place / "metrics.jsonl") if r["stage"] == stage}


def test_pictures_and_a_curve_are_left_and_shown(seen, keys):
    place, result = seen
    found = samples.pictures(place / "samples/prior")
    assert [step for step, _ in found] == [2, 4]
    pictures = [np.asarray(Image.open(path)) for _, path in found]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    curve = rows(place)
    assert sorted(curve) == [2, 4] and curve[4]["n"] == 12
    assert 0 <= curve[4]["agreement"] <= 1 and curve[4]["frechet"] > 0
    assert not (place / "samples/distill").exists()  # its product is a set
    assert "quality" not in result and "quality-classifier" in {
        r["stage"] for r in read(place / "metrics.jsonl")
    }
    page = (place / "report.html").read_text(encoding="utf-8")
    assert f"In features of a {curve[4]['classifier']}" in page
    assert curve[4]["classifier"].startswith("ConvNetBN of width 4 (")
    assert "Samples of prior" in page and "step 4" in page and "Frechet distance, 12 images" in page


def test_the_error_of_reconstruction_is_that_of_the_test_images(seen, keys):
    place, _ = seen
    config, _ = configs.resolve(configs.load(str(FILE), keys).config)
    context = pipeline.prepare(config, place, "test")
    state = phases.problem(context, context.seeds[0]).phases["prior"]
    images = context.data.test.images[:12].reshape(12, -1)
    again = images @ state.variables["encoder"] @ state.variables["decoder"]
    std = np.tile(context.data.transform.std, 64)  # pixels of 0 to 1
    wanted = np.mean(((images - again) * std) ** 2)
    assert rows(place)[4]["reconstruction"] == pytest.approx(wanted, rel=1e-3)
    made = toy_prior.make_prior(context.config, context.problem)
    drawn = made.reconstruct(state, jnp.asarray(context.data.test.images[:3]))
    np.testing.assert_allclose(np.reshape(drawn, (3, -1)), again[:3], rtol=1e-3, atol=1e-4)


def test_a_run_has_the_same_bits_without_them(seen, keys, tmp_path):
    place, _ = seen
    go(keys | {"quality.every": 0}, tmp_path)
    assert not (tmp_path / "samples").exists() and not rows(tmp_path)
    same_set(place, tmp_path)
    assert prior_of(place)["state"]["aux"]["seen"] == 4
    stage = "prior"
    first, second = (
        [{k: v for k, v in r.items() if k != "seconds"} for r in rows(p, stage).values()]
        for p in (place, tmp_path)
    )
    assert first == second and first


def test_more_steps_add_points_and_the_last_pictures_stay(seen, keys, tmp_path):
    import shutil

    place = tmp_path / "w"
    shutil.copytree(seen[0], place)
    before = rows(place)
    go(keys | {"prior_steps": 6}, place, "prior")
    after = rows(place)
    assert sorted(after) == [2, 4, 6] and {s: after[s] for s in (2, 4)} == before
    assert [step for step, _ in samples.pictures(place / "samples/prior")] == [4, 6]
    go(keys | {"prior_steps": 6, "quality.keep": 1, "quality.every": 3}, place, "prior")
    assert [step for step, _ in samples.pictures(place / "samples/prior")] == [4, 6]  # it is done


@pytest.mark.parametrize(
    "change, words",
    [
        ({"quality.images": 12, "quality.net": "ConvNe"}, "config.quality.net: unknown net"),
        ({"quality.images": 12, "quality.k": 12}, "config.quality.k: 12, and 12 images"),
        ({"quality.every": -1}, "config.quality.every"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_write(keys, change, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        go(keys | change, tmp_path / "w")
    assert not (tmp_path / "w").exists()


def test_identities_do_not_depend_on_what_is_seen(keys, tmp_path):
    contexts = []
    for change in ({}, {"quality.every": 7, "quality.width": 8}):
        config, _ = configs.resolve(configs.load(str(FILE), keys | change).config)
        contexts.append(pipeline.prepare(config, tmp_path, "test"))
    first, second = (phases.identities(context) for context in contexts)
    assert first == second


def test_pictures_of_reconstructions_are_left_kept_and_shown(seen, keys):
    place, _ = seen
    found = samples.pictures(place / "samples/prior", samples.AGAIN)
    assert [step for step, _ in found] == [2, 4]
    config, _ = configs.resolve(configs.load(str(FILE), keys).config)
    context = pipeline.prepare(config, place, "test")
    state = phases.problem(context, context.seeds[0]).phases["prior"]
    test = context.data.test
    chosen = [np.flatnonzero(test.labels == c)[i] for i in (0, 1) for c in range(3)]
    images = test.images[chosen]
    rows = images.reshape(6, -1) @ state.variables["encoder"] @ state.variables["decoder"]
    rows = rows.reshape(images.shape)
    sheet = np.asarray(Image.open(found[-1][1]).convert("RGB")).astype(int)
    # Tiles of 8x8 pixels, enlarged 8 times, in four strips of three.
    left = sheet.shape[1] - 16 - 3 * 64 - 2 * 4
    for strip, shown in enumerate((images[:3], rows[:3], images[3:], rows[3:])):
        pixels = np.clip(context.data.transform.inverse(shown), 0, 1) * 255
        for i in range(3):
            y, x = 16 + strip * 68 + 4, left + i * 68 + 4
            tile = sheet[y : y + 64 : 8, x : x + 64 : 8]
            np.testing.assert_allclose(tile, pixels[i], atol=1.5)
    page = (place / "report.html").read_text(encoding="utf-8")
    assert "Reconstructions by prior" in page and "The mean squared error of test images" in page


def test_the_estimate_counts_pictures_and_points_of_the_curve(keys, tmp_path, capsys):
    cache = {"data.cache_dir": str(tmp_path / "cache")}  # without the classifier
    more, none = (
        go(keys | cache | change, tmp_path / "none", "estimate")["prior"]
        for change in ({"prior_steps": 400, "quality.every": 1}, {"quality.every": 0})
    )
    first, second = (line for line in capsys.readouterr().out.splitlines() if "prior  " in line)
    assert "400 pictures and points of the curve, " in first and "; the classifier: " in first
    assert "picture" not in second and more["seconds"] > none["seconds"]
    assert not (tmp_path / "none").exists() and not (tmp_path / "cache").exists()
