"""Coresets beside the shared suite: their settings, and features in batches."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jdd import config, nets
from jdd.config import published
from jdd.errors import BadInput
from jdd.evaluation.predict import outputs


def resolved(spec, **values):
    return config.resolve(config.load(spec, values).config)[0]


@pytest.mark.parametrize(
    "method, figure", [("random", 0.260), ("herding", 0.316), ("kcenter", 0.364)]
)
def test_published_rows_are_runs_without_steps(method, figure):
    found = resolved(f"{method}.py:cifar10,ipc=10")
    assert (found.steps, found.eval.lr, found.eval.epochs, found.align_corners) == (
        0, 0.01, 1000, False,
    )  # fmt: skip
    assert (found.experts.count, found.experts.epochs, found.experts.momentum) == (1, 50, 0.9)
    told = published.figure(found)
    assert told["accuracy"] == figure and told["protocol_differs"] == []
    stages = config.stage_names(found)
    assert ("experts" in stages) == (method != "random") and "distill" in stages


def test_without_augmentation_nets_are_trained_as_dc_does():
    found = resolved("herding.py:cifar10,ipc=10", **{"data.dsa": "none"})
    assert found.eval.epochs == 300
    assert "data.dsa" in published.figure(found)["protocol_differs"]
    assert resolved("random.py:mnist", **{"data.path": "x.npz", "eval.epochs": 7}).eval.epochs == 7


def test_kcenter_names_the_variant():
    for dataset, whose in (("cifar10", "DM's"), ("mnist", "DC's and CAFE's")):
        found = resolved(f"kcenter.py:{dataset}", **{"data.path": "x.npz"})
        assert whose in published.figure(found)["source"]


def test_el2n_trains_ten_nets_early_and_keeps_the_easiest():
    found = resolved("el2n.py:cifar10,ipc=10")
    assert (found.experts.count, found.experts.epochs, found.select) == (10, 5, "easiest")
    assert resolved("el2n.py:digits").experts.epochs == 2
    assert resolved("el2n.py:digits", select="band", band=0.3).band == 0.3
    with pytest.raises(BadInput, match="config.band: 0.3 with select=easiest"):
        resolved("el2n.py:digits", band=0.3)


def test_steps_and_a_rate_of_none_are_refused():
    for key, words in (("steps", "steps: 3 with method=random"), ("eval.lr", "no rate is learned")):
        with pytest.raises(BadInput, match=words):
            resolved("random.py:digits", **{key: 3 if key == "steps" else 0})


def test_outputs_in_batches_are_those_of_the_whole():
    net = nets.make("ConvNet", (8, 8, 1), 3, width=4, depth=2)
    variables = net.init(jax.random.key(0))
    images = np.random.default_rng(0).standard_normal((207, 8, 8, 1)).astype(np.float32)
    found, whole = outputs(net, variables, images), net.apply(variables, images, train=False)
    np.testing.assert_allclose(found.logits, whole.logits, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.features, whole.features, rtol=1e-5, atol=1e-6)
    assert found.features.shape == whole.features.shape
