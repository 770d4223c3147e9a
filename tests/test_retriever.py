"""Search in pictures of one's own by words: the towers, the program of the docs, bad input."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jdd
from jdd import config as configs
from jdd.data import pairs as paired
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.run import pipeline
from jdd.stages import pairs as stage
from jdd.tasks.retrieval import RETRIEVAL

DOCS = (Path(__file__).parents[1] / "docs/use-a-set.md").read_text(encoding="utf-8")
COLOURS = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (40, 50, 210)}


def square(name: str, i: int, side: int = 8) -> Image.Image:
    noise = np.random.default_rng(i).integers(-20, 20, (side, side, 3))
    return Image.fromarray(np.clip(noise + COLOURS[name], 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on 30 squares of three colours, each with a caption that names its colour."""
    place = tmp_path_factory.mktemp("squares")
    (place / "photos").mkdir()
    rows = ["file,caption"]
    for i in range(30):
        name = list(COLOURS)[i % 3]
        square(name, i).save(place / f"photos/{i:02d}.png")
        rows.append(f"{i:02d}.png,a {name} square")
    (place / "photos/captions.csv").write_text("\n".join(rows) + "\n")
    keys = {
        "pairs": 12, "data.path": str(place / "photos"), "data.cache_dir": str(place / "cache"),
        "net.name": "MLP", "nets": "MLP", "net.width": 32, "text.size": 64, "towers.size": 8,
        "eval.n": 1, "eval.epochs": 200, "baselines.random": 0, "baselines.full": False,
        "progress": False,
    }  # fmt: skip
    loaded = configs.load("random_pairs:squares", keys)
    result = pipeline.run(loaded, str(place / "run"), "all", None, "test")
    own = place / "own"
    (own / "deep").mkdir(parents=True)
    for i, name in enumerate(COLOURS):  # new ones, of another size
        square(name, 100 + i, 20).save(own / f"deep/{name}.jpg", quality=95)
    (own / "notes.txt").write_text("no picture")
    return place / "run", own, result


@pytest.fixture(scope="module")
def towers(run):
    return jdd.retriever(run[0], seed=int(jdd.load(run[0]).recipe["seed"]))


def test_the_towers_are_those_of_the_evaluation(run, towers):
    place, _, result = run
    made = jdd.load(place / "distilled.npz")
    test = paired.of_recipe(made.recipe).test
    stacked = {"params": {k: _stacked(v) for k, v in towers.variables["params"].items()}}
    found = RETRIEVAL.measure(towers.net, stacked, RETRIEVAL.problems(test))
    assert found[0, 0] == pytest.approx(result["metrics"]["MLP"]["mean"])
    other = jdd.retriever(made, seed=7)
    x, e = stage.material(made)[0].values()
    assert not np.array_equal(_logits(towers, x, e), _logits(other, x, e))
    assert train_eval.plan(made).passes == 201


def _stacked(tree):
    return {k: _stacked(v) if isinstance(v, dict) else np.asarray(v)[None] for k, v in tree.items()}


def _logits(towers, x, e):
    return np.asarray(towers.net.apply(towers.variables, {"image": x, "text": e}).logits)


def test_words_find_pictures(run, towers):
    _, own, _ = run
    for name in COLOURS:
        found = towers.search(f"a {name} square", own, k=10)
        assert len(found) == 3  # of 10: all there are
        assert Path(found[0][0]).stem == name
        cosines = [cosine for _, cosine in found]
        assert cosines == sorted(cosines, reverse=True) and abs(cosines[0]) <= 1 + 1e-6
    listed = towers.search("a red square", [own / "deep/red.jpg"], k=1)
    assert listed[0][0].endswith("red.jpg")
    np.testing.assert_allclose(np.linalg.norm(towers.embed_texts(["red", "blue"]), axis=1), 1, 1e-5)


def test_the_program_of_the_docs_runs(run, monkeypatch, capsys):
    place, own, _ = run
    part = DOCS.partition("### Search your own pictures")[2]
    code = re.search(r"^```python\n(.*?)^```", part, re.M | re.S).group(1)
    monkeypatch.setattr(sys, "argv", ["x", str(place), str(own), "a", "blue", "square"])
    exec(code, {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("blue.jpg") and lines[-1].endswith("blue.jpg is a blue square")


def test_bad_input_is_named(run, towers, tmp_path):
    place, own, _ = run
    for words, where, message in (
        ("  ", own, "texts: ' '; words"),
        ("red", tmp_path, "pictures: none in"),
        ("red", tmp_path / "no.png", "none in"),
        ("red", own / "notes.txt", "not an image"),
        ("red", [own / "no.png"], "no.png: No such file"),
    ):
        with pytest.raises(BadInput, match=message):
            towers.search(words, where)
    pairs = jdd.load(place / "distilled.npz")
    old = pairs.with_recipe(pairs.recipe | {"text": {"encoder": "hashed", "size": 64}})
    with pytest.raises(BadInput, match="distil the set again"):
        jdd.retriever(old)
    from tests.tiny_distilled import make

    with pytest.raises(BadInput, match="retriever: a product of kind 'images'"):
        jdd.retriever(make())
