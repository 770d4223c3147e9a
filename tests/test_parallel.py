"""Work split over simulated devices gives what one device gives."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import parallel, rng
from jdd.data import Rows
from jdd.errors import BadInput
from jdd.parallel import gradient, over_devices


@pytest.fixture(params=sorted(over_devices.FORMS))
def form(request, monkeypatch):
    """Run the test by each form of a program over devices."""
    monkeypatch.setattr(over_devices, "FORM", request.param)


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("items", [1, 4, 5])
def test_spread(count, items, form):
    devices = jax.devices()[:count]
    x = jnp.arange(items * 3.0).reshape(items, 3)
    per_device = jnp.ones((count, 2))

    def fn(row, shared, own, scale):
        return {"a": row * scale + jnp.sum(shared), "b": jnp.sum(own)}

    call = parallel.spread(fn, (0, None, "device", None), devices)
    out = call(x, jnp.ones(2), per_device, 2.0)
    np.testing.assert_allclose(out["a"], 2 * x + 2)
    again = call(out["a"], jnp.ones(2), per_device, 2.0)  # its own output
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
def test_mean_gradient_does_not_depend_on_devices(items, form):
    variables = {"x": jnp.arange(3.0)}
    batch = {"w": jnp.arange(items * 3.0).reshape(items, 3)}
    keys = jax.random.split(rng.key(0, "test"), items)
    accelerator = [SimpleNamespace(platform="gpu")]
    found = [
        parallel.MeanGradient(objective, devices, merged=merged)(variables, {}, batch, keys)
        for devices in (jax.devices()[:1], jax.devices()[:2], jax.devices()[:4], accelerator)
        for merged in (False, True)
    ]
    noise = jax.vmap(lambda k: jax.random.normal(k, ()))(keys)
    truth = 2 * variables["x"] * batch["w"].mean(0) + noise.mean()
    for (loss, (_, extra)), grads in found:
        np.testing.assert_allclose(grads["x"], truth, rtol=1e-5)
        np.testing.assert_allclose(extra["noise"], noise.mean(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss, found[0][0][0], rtol=1e-5)


def test_merged_items_are_one_program_without_a_loop():
    variables, batch = {"x": jnp.arange(3.0)}, {"w": jnp.ones((4, 3))}
    args = variables, {}, batch, jax.random.split(rng.key(0, "test"), 4), jnp.ones(4)
    for merged in (False, True):
        made = parallel.MeanGradient(objective, jax.devices()[:1], merged=merged)
        said = str(jax.make_jaxpr(made._mean)(args))
        assert ("scan[" in said) != merged and "dot_general" not in said


def read_objective(variables, aux, item, key):
    loss = jnp.sum(item["images"] @ variables["x"]) + jax.random.normal(key, ())
    return loss, ({"seen": item["images"].sum()}, {"class": item["class"].sum()})


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("items", [1, 2, 7])
def test_rows_are_read_in_rounds(monkeypatch, items, count):
    """Images named by their rows give what the images give, however few are read at a time."""
    images = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    rows = np.arange(items * 4).reshape(items, 4) % 9
    variables = {"x": jnp.arange(3.0)}
    keys = jax.random.split(rng.key(0, "test"), items)
    classes = np.arange(float(items), dtype=np.float32)

    def mean(read):
        batch = {"images": read, "class": classes}
        return parallel.MeanGradient(read_objective, jax.devices()[:count])(
            variables, {}, batch, keys
        )

    wanted = mean(images[rows])
    lazy = Rows(images, rows)
    assert (lazy.shape, lazy.nbytes, len(lazy)) == ((items, 4, 3), items * 48, items)
    np.testing.assert_array_equal(np.asarray(lazy[1:]), images[rows[1:]])
    for room in (gradient.ROUND, 2 * 48, 1):
        monkeypatch.setattr(gradient, "ROUND", room)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), mean(lazy), wanted
        )


@pytest.fixture
def taken(monkeypatch):
    """Lists how many items every read of ``Rows`` has read."""
    found, whole, one = [], Rows.__array__, Rows.__getitem__

    def all_of_it(self, dtype=None, copy=None):
        found.append(len(self))
        return whole(self, dtype, copy)

    def item(self, at):
        if not isinstance(at, slice):
            found.append(1)
        return one(self, at)

    monkeypatch.setattr(Rows, "__array__", all_of_it)
    monkeypatch.setattr(Rows, "__getitem__", item)
    return found


def test_no_more_is_read_than_goes_through(monkeypatch, taken):
    """Rounds of one item a device, the last filled up; a lone CPU reads an item at a time."""
    monkeypatch.setattr(gradient, "ROUND", 48)
    lazy = Rows(np.ones((9, 3), np.float32), np.arange(20).reshape(5, 4) % 9)
    keys = jax.random.split(rng.key(0, "test"), 5)
    batch = {"images": lazy, "class": np.zeros(5, np.float32)}
    # The first item of a lone CPU's twice: its shape is what the program is compiled for.
    for count, wanted in ((1, [1] * 6), (2, [2, 2, 1])):
        taken.clear()
        made = parallel.MeanGradient(read_objective, jax.devices()[:count])
        made({"x": jnp.ones(3)}, {}, batch, keys)
        assert taken == wanted
        assert made.programs == 1


@pytest.mark.parametrize("items", [1, 5])
@pytest.mark.parametrize("room", [96, 1])
def test_one_accelerator_goes_in_rounds(monkeypatch, taken, items, room):
    """Items of one accelerator run in one program, as many as ROUND holds in each round."""
    monkeypatch.setattr(gradient, "ROUND", room)
    images = np.random.default_rng(0).normal(size=(9, 3)).astype(np.float32)
    rows = np.arange(items * 4).reshape(items, 4) % 9
    keys = jax.random.split(rng.key(0, "test"), items)
    variables, classes = {"x": jnp.arange(3.0)}, np.arange(items, dtype=np.float32)
    made = parallel.MeanGradient(read_objective, [SimpleNamespace(platform="gpu")])
    found = made(variables, {}, {"images": Rows(images, rows), "class": classes}, keys)
    a_round = min(items, max(1, room // 48))
    assert max(taken) == -(-items // -(-items // a_round)) and sum(taken) == items
    alone = parallel.MeanGradient(read_objective, jax.devices()[:1])
    wanted = alone(variables, {}, {"images": images[rows], "class": classes}, keys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6, atol=1e-6), found, wanted)
    assert made.programs == 1


def test_memory_is_the_least_that_a_device_says():
    devices = [SimpleNamespace(memory_stats=lambda n=n: n) for n in ({"bytes_limit": 5}, {}, None)]
    assert parallel.memory(devices[:1]) == 5
    assert parallel.memory(devices) == 5
    assert parallel.memory(devices[1:]) == 8 << 30
    silent = SimpleNamespace(memory_stats=lambda: {"bytes_limit": -1})
    assert parallel.memory([silent]) == 8 << 30


@pytest.mark.parametrize(
    "said", ["", "MALLOC_ARENA_MAX=3", "GLIBC_TUNABLES=glibc.malloc.arena_max=2"]
)
def test_heaps_are_few_unless_the_person_says_how_many(said):
    """In a process of its own: the setting is glibc's, and for good."""
    code = (
        "from jdd.parallel import devices; calls = []; "
        "devices._glibc = lambda *a: calls.append(a); devices.pick(1); devices.pick(); print(calls)"
    )
    clean = {k: v for k, v in os.environ.items() if k not in ("MALLOC_ARENA_MAX", "GLIBC_TUNABLES")}
    env = clean | dict([said.split("=", 1)] if said else [])
    out = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout
    wanted = [] if said else [("mallopt", -8, max(1, os.cpu_count() // 4))]
    assert out.strip() == str(wanted)


def test_too_many_devices():
    with pytest.raises(BadInput, match="config.devices"):
        parallel.pick(1000)


@pytest.mark.parametrize("items", [2, 3, 5])
def test_processes_have_their_own_items_of_a_batch(items, monkeypatch):
    """Joined they are the padded batch of one process."""
    rows = Rows(np.arange(20.0).reshape(10, 2), np.arange(items)[:, None])
    mean = parallel.MeanGradient(objective, jax.devices()[:2])
    given = (rows, np.arange(items), 2, -(-items // 2))
    whole = mean._own(*given)
    halves = []
    for at in range(2):
        monkeypatch.setattr(gradient.across, "own", lambda _, at=at: slice(at, at + 1))
        halves.append(mean._own(*given))
    for ours, first, second in zip(whole, *halves, strict=True):
        np.testing.assert_array_equal(np.concatenate([first, second]), ours)
    assert sum(whole[-1]) == items
