"""Herding and k-center of pairs: chosen by embeddings of trained towers, one caption an image."""

from __future__ import annotations

import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd import methods
from jdd.errors import BadInput
from jdd.run import pipeline

KEYS = {
    "pairs": 6, "text.captions": 2, "text.size": 16, "towers.size": 4, "net.width": 8,
    "experts.epochs": 1, "experts.batch": 400, "eval.n": 1, "eval.epochs": 2,
    "baselines.random": 1, "baselines.full": False, "progress": False,
}  # fmt: skip


def embedded(context):
    """f = [u; v] of every training pair, by the formula of the towers alone."""
    train, net = context.data.train, context.net
    variables = context.problem.experts.read(0, 1)
    u = net.apply(variables, {"image": train.images}).embeddings["image"]
    v = net.apply(variables, {"text": train.text}).embeddings["text"]
    return np.concatenate([np.asarray(u)[train.image_of], np.asarray(v)], 1).astype(np.float64)


def expected(method, f, image_of, count):
    mean, chosen = f.mean(0), []
    for k in range(count):
        if method == "kcenter_pairs" and k:
            score = -np.min([np.sum((f - f[j]) ** 2, 1) for j in chosen], axis=0)
        else:
            score = np.sum((mean - (f[chosen].sum(0) + f) / (k + 1)) ** 2, 1)
        score = np.where(np.isin(image_of, image_of[chosen]), np.inf, score)
        chosen.append(int(np.argmin(score)))
    return chosen


@pytest.mark.parametrize("method", ["herding_pairs", "kcenter_pairs"])
def test_pairs_are_those_of_the_rule(method, tmp_path):
    loaded = configs.load(f"{method}:digits_captions", KEYS)
    result = pipeline.run(loaded, str(tmp_path), "all", None, "test")
    product = jdd.load(tmp_path / "distilled.npz")
    context = pipeline.prepare(configs.resolve(loaded.config)[0], tmp_path, "test")
    train, rows = context.data.train, product.recipe["selected"]
    assert rows == expected(method, embedded(context), train.image_of, 6)
    assert len(set(train.image_of[rows])) == 6
    np.testing.assert_array_equal(product.images, train.images[train.image_of[rows]])
    np.testing.assert_array_equal(product.text, train.text[rows])
    assert product.captions == tuple(train.captions[i] for i in rows)
    made = methods.make(context.config, context.problem)
    assert made.init(1).aux["captions"].tolist() == rows  # for every seed
    assert result["method"] == method and result["metrics"]["MLP"]["n"] == 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "of pairs" in page and product.captions[0] in page


@pytest.mark.parametrize("method", ["herding_pairs", "kcenter_pairs"])
def test_costs_are_estimated_without_towers(method, tmp_path):
    loaded = configs.load(f"{method}:digits_captions", KEYS)
    found = pipeline.run(loaded, str(tmp_path / "x"), "estimate", None, "test")
    assert found["evaluate"]["seconds"] > 0 and not (tmp_path / "x").exists()


def test_more_pairs_than_images_and_steps_are_refused(tmp_path):
    for keys, words in (({"pairs": 2000}, "2 to 1442"), ({"steps": 3}, "real pairs are chosen")):
        loaded = configs.load("kcenter_pairs:digits_captions", KEYS | keys)
        with pytest.raises(BadInput, match=words):
            pipeline.run(loaded, str(tmp_path / "w"), "all", None, "test")
    assert not (tmp_path / "w").exists()
