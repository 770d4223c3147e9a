"""CovMatch: its loss by NumPy, its towers between steps, its run, its refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jdd
from jdd import config as configs
from jdd import methods, rng
from jdd.errors import BadInput
from jdd.matching import contrastive
from jdd.run import loop, pipeline

TINY = {
    "pairs": 5, "text.captions": 1, "text.size": 8, "towers.size": 4, "steps": 4, "batch_real": 30,
    "net.name": "ConvNet", "nets": "ConvNet", "net.width": 3, "net.depth": 1, "reset_every": 2,
    "lr_img": 3.0, "lr_txt": 3.0, "eval.n": 2, "eval.epochs": 3, "baselines.random": 2,
    "baselines.full": False, "progress": False, "checkpoint_every": 1, "log_every": 1,
}  # fmt: skip


def context(place: Any, **keys: Any) -> Any:
    """Return the prepared run on captions of digits; nothing is run or written."""
    loaded = configs.load("covmatch:digits_captions", TINY | keys)
    return pipeline.prepare(configs.resolve(loaded.config)[0], place, "test")


def made(**keys: Any) -> tuple[Any, Any]:
    """Return the prepared run and its method."""
    found = context(Path("unused"), **keys)
    return found, methods.make(found.config, found.problem)


def test_the_loss_is_that_of_numpy():
    found, method = made(batch_syn=3, feature_weight=0.7, rho=1.5)
    state = method.init(0)
    batch = found.problem.gather(method.sample(0, 0))
    item = jax.tree.map(lambda a: a[0], batch)
    train, rows = found.data.train, method.sample(0, 0)["pairs"][0]
    np.testing.assert_array_equal(item["pairs"]["image"], train.images[train.image_of[rows]])
    np.testing.assert_array_equal(item["pairs"]["text"], train.text[rows])
    assert rows.shape == (30,) and item["rows"].shape == (3,) == np.unique(item["rows"]).shape
    net, variables = found.net, state.aux["towers"]["variables"]

    apply = jax.jit(lambda pairs: net.apply(variables, pairs).embeddings)

    def embedded(image: Any, text: Any) -> list[np.ndarray]:
        out = apply({"image": image, "text": text})
        return [np.asarray(out[name], np.float64) for name in ("image", "text")]

    def covariance(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.cov(u, v, rowvar=False)[:4, 4:]

    real = embedded(item["pairs"]["image"], item["pairs"]["text"])
    chosen = item["rows"]
    synthetic = embedded(state.variables["images"][chosen], state.variables["text"][chosen])
    wanted = np.sum((1.5 * covariance(*real) - covariance(*synthetic)) ** 2)
    for t, s in zip(real, synthetic, strict=True):
        wanted += 0.7 * np.sum((t.mean(0) - s.mean(0)) ** 2)
    objective = jax.jit(method.objective)
    loss, (_, metrics) = objective(state.variables, state.aux, item, rng.key(0, "test"))
    np.testing.assert_allclose(loss, wanted, rtol=1e-4)
    np.testing.assert_allclose(metrics["covariance"] + 0.7 * metrics["means"], loss, rtol=1e-6)


def test_rho_and_lambda_follow_the_number_of_pairs():
    for pairs, rho, weight in ((5, 2.0, 0.1), (200, 1.0, 0.1), (500, 1.0, 0.6)):
        config = context(Path("unused"), pairs=pairs).config
        assert (config.rho, config.feature_weight) == (rho, weight)


def test_towers_take_a_step_on_the_real_batch_and_are_drawn_anew():
    found, method = made()
    carry = loop.start(method, 0)
    gradient, update = loop.make_step(method, 0, jax.devices()[:1])
    towers = [carry.state.aux["towers"]["variables"]["params"]]
    for step in range(4):
        batch = found.problem.gather(method.sample(0, step))
        carry, _ = update(carry, gradient(carry, batch), jnp.asarray(True))
        towers.append(carry.state.aux["towers"]["variables"]["params"])
        assert int(carry.state.aux["count"]) == (step + 1) % 2
    item = jax.tree.map(lambda a: a[0], found.problem.gather(method.sample(0, 0)))

    def nce(params: Any) -> Any:
        logits = found.net.apply({"params": params}, item["pairs"], train=True).logits
        return contrastive.nce(logits, jnp.eye(30))

    grads = jax.jit(jax.grad(nce))(towers[0])
    by_hand = jax.tree.map(lambda p, g: p - 0.1 * g, towers[0], grads)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), towers[1], by_hand
    )
    for step in range(1, 5):  # steps 2 and 4 end in fresh towers, another draw each
        fresh = found.net.init(rng.key(0, "advance", step - 1))["params"]
        same = [
            np.array_equal(*pair)
            for pair in zip(*map(jax.tree.leaves, (towers[step], fresh)), strict=True)
        ]
        assert all(same) == (step % 2 == 0)


def test_a_run_ends_in_pairs_that_load_and_evaluate(tmp_path):
    keys = TINY | {"steps": 12, "towers.frozen": True, "towers.start": "shared"}
    loaded = configs.load("covmatch:digits_captions", keys)
    result = pipeline.run(loaded, str(tmp_path / "run"), "all", None, "test")
    pairs = jdd.load(tmp_path / "run" / "distilled.npz")
    assert pairs.kind == "pairs" and pairs.size == 5 and not pairs.rates
    assert pairs.recipe["train"]["lr"] == 0.1 and pairs.recipe["towers"]["frozen"] is True
    assert not (tmp_path / "run" / "experts").exists()
    found = jdd.evaluate(tmp_path / "run" / "distilled.npz", tmp_path / "e", eval={"n": 2})
    again = found["metrics"]["ConvNet"]["values"]
    np.testing.assert_allclose(again, result["metrics"]["ConvNet"]["values"])


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"batch_syn": 1}, "config.batch_syn: 1 of 5 pairs"),
        ({"batch_syn": 6}, "config.batch_syn: 6 of 5 pairs"),
        ({"eval.lr": 0.0}, "config.eval.lr: 0, and no rate is learned"),
        ({"batch_real": 1}, "config.batch_real: 1"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(keys, words, tmp_path):
    with pytest.raises(BadInput, match=words):
        loaded = configs.load("covmatch:digits_captions", TINY | keys)
        pipeline.run(loaded, str(tmp_path / "x"), "all", None, "test")
    assert not (tmp_path / "x").exists()
