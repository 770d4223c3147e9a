"""Work split over simulated devices gives what one device gives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import parallel, rng
from jdd.errors import BadInput


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("items", [1, 4, 5])
def test_spread(count, items):
    devices = jax.devices()[:count]
    x = jnp.arange(items * 3.0).reshape(items, 3)
    per_device = jnp.ones((count, 2))

    def fn(row, shared, own, scale):
        return {"a": row * scale + jnp.sum(shared), "b": jnp.sum(own)}

    call = parallel.spread(fn, (0, None, "device", None), devices)
    out = call(x, jnp.ones(2), per_device, 2.0)
    np.testing.assert_allclose(out["a"], 2 * x + 2)
    again = call(out["a"], jnp.ones(2), per_device, 2.0)  # its own output, laid out by pmap
    np.testing.assert_allclose(again["a"], 2 * out["a"] + 2)
    np.testing.assert_allclose(again["b"], np.full(items, 2.0))


@pytest.mark.parametrize("items", [1, 2, 5])
def test_side_by_side_is_what_vmap_is(items):
    """Items of a lone CPU run in threads, each by the same program."""
    x = jnp.arange(items * 3.0).reshape(items, 3)
    traced = []

    def fn(row, shared, own, steps):
        traced.append(1)
        row = jax.lax.fori_loop(0, steps, lambda i, r: r + shared[0], row)
        return {"a": row * jnp.sum(own)}

    axes = (0, None, "device", None)
    call = parallel.spread(fn, axes, jax.devices()[:1])
    # Settings of this thread that the others do not have: compiled once all the same.
    with jax.default_matmul_precision("highest"):
        for steps in (2, 3):
            out = call(x, np.ones(2), 2 * jnp.ones((1, 2)), steps)
            np.testing.assert_allclose(out["a"], 4 * (x + steps))
        assert len(traced) == 1
        alone = call(x[-1:], np.ones(2), 2 * jnp.ones((1, 2)), 3)
    np.testing.assert_array_equal(alone["a"][0], out["a"][-1])
    assert len(traced) == 1  # however many items there are
    call(x, np.ones(2), 2 * jnp.ones((1, 2)), 2)
    assert len(traced) == 2  # another precision is another program
    with jax.enable_x64(True):
        wide = call(jnp.ones((2, 3), jnp.float64), np.ones(2), jnp.ones((1, 2)), 1)["a"]
    assert wide.dtype == jnp.float64
    assert parallel.planned(call, x, np.ones(2), jnp.ones((1, 2)), 1) >= 0


def objective(variables, aux, item, key):
    noise = jax.random.normal(key, ())
    loss = jnp.sum(variables["x"] ** 2 * item["w"]) + noise * jnp.sum(variables["x"])
    return loss, (aux, {"noise": noise})


@pytest.mark.parametrize("items", [1, 3, 4, 7])
def test_mean_gradient_does_not_depend_on_devices(items):
    variables = {"x": jnp.arange(3.0)}
    batch = {"w": jnp.arange(items * 3.0).reshape(items, 3)}
    keys = jax.random.split(rng.key(0, "test"), items)
    found = [
        parallel.MeanGradient(objective, jax.devices()[:n])(variables, {}, batch, keys)
        for n in (1, 2, 4)
    ]
    noise = jax.vmap(lambda k: jax.random.normal(k, ()))(keys)
    truth = 2 * variables["x"] * batch["w"].mean(0) + noise.mean()
    for (loss, (_, extra)), grads in found:
        np.testing.assert_allclose(grads["x"], truth, rtol=1e-5)
        np.testing.assert_allclose(extra["noise"], noise.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss, found[0][0][0], rtol=1e-5)


def test_too_many_devices():
    with pytest.raises(BadInput, match="config.devices"):
        parallel.pick(1000)
