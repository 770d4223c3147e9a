"""FTD's average of the images, and its experts' place in a store."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import config as config_lib
from jdd import specs
from jdd.config import published
from jdd.errors import BadInput
from jdd.methods import ftd
from jdd.run import loop
from tests import runs


def test_the_saved_images_are_the_average_over_the_steps(tiny, tmp_path):
    context = runs.context({**tiny, "method": "ftd", "ema": 0.7}, tmp_path)
    method = ftd.make(context.config, context.blank)
    _, update = loop.make_step(method, 0, jax.devices()[:1])
    carry, alive = loop.start(method, 0), jnp.asarray(True)
    mean = np.asarray(carry.state.variables["images"], np.float64)
    draw = np.random.default_rng(0)
    for _ in range(4):
        grads = {"images": draw.standard_normal(mean.shape), "lr": 0.0}
        grads = jax.tree.map(jnp.float32, grads)
        carry, told = update(carry, ((jnp.float32(1.0), (carry.state.aux, {})), grads), alive)
        mean = 0.7 * mean + 0.3 * np.asarray(carry.state.variables["images"], np.float64)
    assert bool(told["ok"])
    np.testing.assert_allclose(method.distilled(carry.state, 4).images, mean, rtol=1e-5, atol=1e-5)
    assert not np.allclose(carry.state.variables["images"], mean, atol=1e-2)


def test_a_store_tells_plain_experts_from_flat_ones(tiny, tmp_path):
    keys = {**tiny, "experts.dir": str(tmp_path / "x")}
    plain = runs.context(keys, tmp_path)
    plain.store.create()
    written = json.loads((tmp_path / "x" / "store.json").read_text(encoding="utf-8"))
    assert "sam_rho" not in written["settings"]  # as every store made before there was such a key
    plain_ftd = {**keys, "method": "ftd", "experts.sam_rho": 0}
    assert runs.context(plain_ftd, tmp_path).store.directory.exists()
    with pytest.raises(BadInput, match="sam_rho=0.0.*this run has.*sam_rho=0.01"):
        runs.context({**keys, "method": "ftd"}, tmp_path)
    flat = runs.context({**tiny, "method": "ftd"}, tmp_path / "own")
    assert flat.recipe().sam_rho == 0.01
    # The whole-data baseline is everybody's: plain, and cached under one name.
    assert flat.recipe(flat=False) == plain.recipe(flat=False) == plain.recipe()
    assert flat.settings(1, flat=False) == plain.settings(1, flat=False)


def test_an_average_that_never_moves_is_refused():
    with pytest.raises(BadInput, match="config.ema"):
        config_lib.resolve(config_lib.load("ftd.py:digits,ema=1").config)


@pytest.mark.parametrize("method", ["ftd", "datm"])
def test_published_rows_resolve(method):
    for dataset, ipc in specs.get(method).published:
        loaded = config_lib.load(f"{method}.py:{dataset}", {"ipc": ipc, "data.path": "x.zip"})
        config, _ = config_lib.resolve(loaded.config)
        assert config.experts.sam_rho == 0.01
        assert published.figure(config)["protocol_differs"] == []
