"""Ways of testing batch norm: recalibrated statistics, their columns, what is refused."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jdd
from jdd import config, nets
from jdd.data import Split
from jdd.errors import BadInput
from jdd.evaluation import norms
from jdd.evaluation.accuracy import accuracy
from jdd.run.session import Session
from jdd.studies import study_metric
from jdd.training.recipe import Recipe
from tests import runs


@pytest.fixture(scope="module")
def stacked():
    """A net of two batch norms, two nets' variables, and 13 images unlike their statistics."""
    net = nets.make("ConvNetBN", (8, 8, 1), 3, width=3, depth=2)
    variables = jax.vmap(net.init)(jax.random.split(jax.random.key(0), 2))
    images = np.random.default_rng(0).normal(2, 3, (13, 8, 8, 1)).astype(np.float32)
    return net, variables, images


def only(variables, i):
    return jax.tree.map(lambda a: a[i], variables)


def test_recalibrated_statistics_are_the_averages_over_all_images(stacked, monkeypatch):
    monkeypatch.setattr(norms, "BATCH", 5)  # batches of 5, 4 and 4 images
    net, variables, images = stacked
    found = norms.recalibrated(net, variables, images, 0)
    for i in range(2):
        # What comes before the first batch norm does not depend on the batch.
        x = np.asarray(net.apply(only(variables, i), images, taps=True).taps["norm1"], np.float64)
        stats = found["batch_stats"]["norm1"]
        np.testing.assert_allclose(stats["mean"][i], x.mean((0, 1, 2)), rtol=1e-5)
        np.testing.assert_allclose(stats["var"][i], x.var((0, 1, 2)), rtol=1e-5)
    own = norms.recalibrated(net, variables, np.stack([images, images]), 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, own)
    jax.tree.map(np.testing.assert_array_equal, found["params"], variables["params"])


def test_a_net_recalibrated_on_one_batch_classifies_it_as_in_training(stacked):
    net, variables, images = stacked
    found = norms.recalibrated(net, variables, images, 0)
    for i in range(2):
        there = net.apply(only(found, i), images).logits
        trained = net.apply(only(variables, i), images, train=True).logits
        np.testing.assert_allclose(there, trained, rtol=1e-4, atol=1e-5)


def test_every_way_is_a_column_and_the_first_counts(stacked, tmp_path):
    net, variables, images = stacked
    real, session = images[::-1] * 0.1 + 1, Session(tmp_path, progress=False)
    expected = np.argmax(net.apply(only(variables, 0), images, train=True).logits, axis=1)
    split = Split(images, expected.astype(np.int32))

    def test(net, variables, session):
        return np.stack([accuracy(net, variables, split), np.zeros(2)], axis=1)

    recipe = Recipe(test_norm="set,running,real")
    given = (variables, np.stack([images, images]), real, 0, session)
    found = norms.tested(test, net, recipe, *given)
    assert found.shape == (2, 5) and norms.columns(net, recipe) == [
        "bn_set",
        "bn_running",
        "bn_real",
    ]
    np.testing.assert_array_equal(found[:, 0], found[:, 2])
    assert found[0, 0] == 1.0
    for column, own in ((3, variables), (4, norms.recalibrated(net, variables, real, 0))):
        np.testing.assert_array_equal(found[:, column], accuracy(net, own, split))
    plain = nets.make("ConvNet", (8, 8, 1), 3, width=3, depth=2)
    assert norms.ways(plain, recipe) == () and norms.columns(plain, recipe) == []
    assert norms.columns(net, Recipe(test_norm="real")) == []
    session.metrics.close()


def test_statistics_are_of_real_images_drawn_by_the_seed_and_bounded():
    rows = norms.real_rows(0, 30_000, 4)
    assert len(rows) == norms.MOST and len(set(rows)) == len(rows)
    np.testing.assert_array_equal(rows, norms.real_rows(0, 30_000, 4))
    assert len(norms.real_rows(0, 30_000, 1 << 20)) == 1024


def test_a_run_reports_every_way(tiny, tmp_path):
    own = {"method": "random", "steps": "auto", "net.name": "ConvNetBN", "net.depth": 1}
    own |= {"nets": "ConvNetBN,MLP", "eval.test_norm": "running,set,real", "eval.epochs": 3}
    own |= {"eval.curve": 0, "baselines.full": False, "data.dsa": "none", "baselines.random": 1}
    keys = {k: v for k, v in (tiny | own).items() if k in config.schema("random")}
    result = runs.run(keys, tmp_path / "run")
    ours = result["accuracy"]["ConvNetBN"]
    assert ours["values"] == ours["bn_running"]["values"]
    assert {"bn_set", "bn_real"} <= set(ours) and "bn_set" not in result["accuracy"]["MLP"]
    assert "bn_real" in result["baselines"]["random"]
    head = result["table"].partition("\n")[0]
    page = (tmp_path / "run" / "report.html").read_text()
    for way in ("running", "set", "real images"):
        assert f"Batch norm: {way}" in head and f"Batch norm: {way}" in page
    assert "and the first counts" in page
    figure = study_metric.figure("bn_real.ConvNetBN", result, "MLP")
    assert figure is not None and figure.mean == ours["bn_real"]["mean"]


@pytest.mark.slow
def test_one_way_alone_is_the_accuracy_of_a_saved_set(tiny, tmp_path):
    own = {"method": "random", "steps": "auto", "net.name": "ConvNetBN", "net.depth": 1}
    own |= {"nets": "ConvNetBN", "eval.test_norm": "running,set", "eval.epochs": 3}
    own |= {"eval.curve": 0, "baselines.full": False, "data.dsa": "none", "baselines.random": 0}
    keys = {k: v for k, v in (tiny | own).items() if k in config.schema("random")}
    ours = runs.run(keys, tmp_path / "run")["accuracy"]["ConvNetBN"]
    again = {"eval": {"n": 2, "test_norm": "set"}, "baselines": {"random": 0}, "nets": "ConvNetBN"}
    found = jdd.evaluate(tmp_path / "run" / "distilled.npz", tmp_path / "set", **again)
    assert found["accuracy"]["ConvNetBN"]["values"] == ours["bn_set"]["values"]
    assert "bn_set" not in found["accuracy"]["ConvNetBN"]


@pytest.mark.parametrize("given", ["mean", "set,set", "running,"])
def test_ways_that_are_none_are_refused(given):
    with pytest.raises(BadInput, match="config.eval.test_norm: .*one of running, batch, set, real"):
        config.resolve(config.load("random:digits", {"eval.test_norm": given}).config)


def test_a_metric_of_a_study_needs_its_way():
    resolved = config.resolve(
        config.load("random:digits", {"eval.test_norm": "running,set"}).config
    )
    study_metric.validate("bn_set.ConvNetBN", "S")
    study_metric.validate_measured("bn_set", resolved[0], "c", "S")
    with pytest.raises(BadInput, match="bn_real.* needs real among several ways"):
        study_metric.validate_measured("bn_real", resolved[0], "c", "S")
    assert "recalibrated on the set" in study_metric.words("bn_set.MLP")
    with pytest.raises(BadInput, match="running or batch"):
        config.resolve(config.load("vl:digits_captions", {"eval.test_norm": "set"}).config)
