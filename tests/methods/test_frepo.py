"""FRePo against formulas of its own: the loss, the pool, LAMB, the labels, the schedules."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jdd import config, methods, rng
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.methods import frepo
from jdd.stages import baselines
from tests import runs

KEYS = {
    "method": "frepo", "ipc": 2, "net.width": 2, "net.depth": 2, "pool_size": 4, "pool_steps": 9,
    "batch_real": 12, "lr_img": 0.02, "lr_label": 0.005, "lr_pool": 0.01, "steps": 20,
    "lr_student": 0.01,
}  # fmt: skip


@pytest.fixture(scope="module")
def work_of(toy, tmp_path_factory):
    place = tmp_path_factory.mktemp("frepo")
    base = {"data.name": "toy", "data.path": str(toy), **KEYS}
    return lambda **changes: runs.context({**base, **changes}, place)


@pytest.fixture(scope="module")
def made(work_of):
    context = work_of(flip=True)
    method = methods.make(context.config, context.problem)
    pool = frepo.Pool(frepo.pool_net(context.config, context.problem), 4, 9, 0.01, 1000)
    return context, method, pool


def member(pool, i):
    return jax.tree.map(lambda a: np.asarray(a[i]), pool["members"])


def test_loss_is_ridge_regression_on_the_current_net(made):
    context, method, pool = made
    state = method.init(0)
    aux = state.aux | {"at": jnp.asarray(2)}
    item = jax.tree.map(lambda x: x[0], context.problem.gather(method.sample(0, 0)))
    images, labels = (np.asarray(state.variables[k]) for k in ("images", "labels"))
    labels = labels * np.linspace(0.2, 1, len(labels))[:, None]  # some below the margin's cap
    variables = {"images": images, "labels": labels}
    loss, (kept, metrics) = jax.jit(method.objective)(variables, aux, item, rng.key(0, "x"))
    assert kept == {}  # the pool does not go through the gradient

    def phi(x):
        net = member(state.aux, 2)["variables"]
        return np.asarray(pool.net.apply(net, jnp.asarray(x)).features, np.float64)

    both = np.concatenate([images, images[:, :, ::-1]])
    known, asked = phi(both), phi(item["real"]["images"])
    kernel = known @ known.T
    kernel += 1e-6 * np.trace(kernel) / len(kernel) * np.eye(len(kernel))
    found = asked @ known.T @ np.linalg.inv(kernel) @ np.concatenate([labels, labels])
    wanted = np.eye(3)[item["real"]["labels"]] - 1 / 3
    regression = (0.5 * ((found - wanted) ** 2).sum(1)).mean()
    ordered = np.sort(labels, axis=1)
    margin = -np.minimum(ordered[:, -1] - ordered[:, -2], 1 / 3).mean()
    np.testing.assert_allclose(metrics["regression"], regression, rtol=1e-3)
    np.testing.assert_allclose(loss, regression + margin, rtol=1e-3, atol=1e-4)
    right = np.mean(found.argmax(1) == item["real"]["labels"])
    np.testing.assert_allclose(metrics["real_accuracy"], right, atol=1e-6)
    np.testing.assert_allclose(metrics["ridge"], 1e-6)


def test_equal_parts_of_the_real_batch_mean_the_whole(made, work_of):
    context, method, _ = made
    parted = work_of(flip=True, real_parts=3)
    other = methods.make(parted.config, parted.problem)
    state, key = method.init(0), rng.key(0, "x")

    def losses(context, method):
        batch = context.problem.gather(method.sample(0, 1))
        one = jax.jit(method.objective)
        count = len(batch["real"]["labels"])
        items = [jax.tree.map(lambda x, i=i: x[i], batch) for i in range(count)]
        return [float(one(*state, item, key)[0]) for item in items]

    (whole,), parts = losses(context, method), losses(parted, other)
    assert len(parts) == 3
    np.testing.assert_allclose(np.mean(parts), whole, rtol=1e-5)


def test_labels_and_counters_at_the_start(made):
    _, method, _ = made
    state = method.init(0)
    labels = np.asarray(state.variables["labels"])
    hard = np.repeat(np.arange(3), 2)
    np.testing.assert_allclose(labels, (np.eye(3)[hard] - 1 / 3) / np.sqrt(0.3), rtol=1e-6)
    np.testing.assert_array_equal(state.aux["count"], [0, 2, 4, 6])  # 9 steps over 4 nets
    assert int(state.aux["at"]) == 0
    first, second = (member(state.aux, i)["variables"]["params"] for i in (0, 1))
    assert not np.array_equal(first["conv1"]["kernel"], second["conv1"]["kernel"])
    published = frepo.Pool(made[2].net, 10, 100, 3e-4, 1000).init(rng.key(0, "x"))
    np.testing.assert_array_equal(published["count"], np.arange(0, 100, 10))


@pytest.fixture(scope="module")
def advance(made):
    return jax.jit(made[2].advance)


def test_the_current_member_takes_one_adam_step(made, advance):
    _, method, pool = made
    state = method.init(0)
    images, labels = state.variables["images"], state.variables["labels"]
    before = state.aux | {"at": jnp.asarray(1)}
    after = advance(before, images, labels, rng.key(0, "a"))
    np.testing.assert_array_equal(after["count"], [0, 3, 4, 6])
    for i in (0, 2, 3):
        jax.tree.map(np.testing.assert_array_equal, member(before, i), member(after, i))
    old, new = member(before, 1)["variables"], member(after, 1)["variables"]

    @jax.jit
    def by_hand(params):
        def loss(params):
            out = pool.net.apply({**old, "params": params}, images, train=True, taps=True)
            return jnp.mean(jnp.sum(jnp.square(out.logits - labels), axis=1)) / 2, out.taps

        return jax.grad(loss, has_aux=True)(params)

    grads, taps = by_hand(jax.tree.map(jnp.asarray, old["params"]))
    wanted = jax.tree.map(lambda p, g: p - 0.01 * g / (jnp.abs(g) + 1e-8), old["params"], grads)
    large = jax.tree.map(lambda g: np.abs(g) > 1e-5, grads)
    jax.tree.map(
        lambda a, b, m: np.testing.assert_allclose(a[m], b[m], atol=2e-5),
        new["params"], wanted, large,
    )  # fmt: skip
    # Running statistics: nine tenths of the step's, the variance biased.
    seen, stats = taps["norm2"], new["batch_stats"]["norm2"]
    np.testing.assert_allclose(stats["mean"], 0.9 * seen.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    wanted_var = 0.1 + 0.9 * seen.var((0, 1, 2))
    np.testing.assert_allclose(stats["var"], wanted_var, rtol=1e-4)


def test_a_net_past_its_steps_is_replaced(made, advance):
    _, method, pool = made
    state = method.init(0)
    set_, key = (state.variables["images"], state.variables["labels"]), rng.key(3, "a")
    kept = advance(state.aux | {"count": jnp.asarray([8, 2, 4, 6])}, *set_, key)
    assert int(kept["count"][0]) == 9  # at its last step, not yet past it
    renewed = advance(state.aux | {"count": jnp.asarray([9, 2, 4, 6])}, *set_, key)
    np.testing.assert_array_equal(renewed["count"], [0, 2, 4, 6])
    found = member(renewed, 0)
    fresh = pool.net.init(jax.random.split(key, 3)[0])
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7)
    jax.tree.map(close, found["variables"], fresh)  # compiled and not
    assert float(found["adam"]["t"]) == 0 and not any(map(np.any, jax.tree.leaves(found["adam"])))
    assert float(member(kept, 0)["adam"]["t"]) == 1


def test_the_next_member_is_any(made, advance):
    _, method, _ = made
    state = method.init(0)
    set_ = (state.variables["images"], state.variables["labels"])
    found = [int(advance(state.aux, *set_, rng.key(0, "a", i))["at"]) for i in range(80)]
    share = np.bincount(found, minlength=4) / len(found)
    assert share.min() > 0.12 and share.max() < 0.4
    again = [int(advance(state.aux, *set_, rng.key(0, "a", i))["at"]) for i in range(9)]
    assert again == found[:9]


def test_large_sets_train_the_pool_in_part(made):
    _, method, pool = made
    small = frepo.Pool(pool.net, 4, 9, 0.01, 2)
    state, key = method.init(0), rng.key(0, "a")
    images, labels = state.variables["images"], state.variables["labels"]
    rows = jax.random.permutation(jax.random.split(key, 3)[1], len(images))[:2]
    advance = jax.jit(small.advance)
    found = advance(state.aux, images, labels, key)
    unused = jnp.ones(len(images)).at[rows].set(0)[:, None, None, None]
    other = advance(state.aux, images + unused, labels, key)
    jax.tree.map(np.testing.assert_array_equal, found, other)
    changed = advance(state.aux, images + 1 - unused, labels, key)["members"]["adam"]["m"]
    moved = found["members"]["adam"]["m"]
    assert not np.array_equal(changed["conv1"]["kernel"], moved["conv1"]["kernel"])


def test_lamb_measures_whole_tensors_and_its_rate_falls(made):
    _, method, _ = made
    state = method.init(0)
    draw = np.random.default_rng(0)
    x, m, v = dict(state.variables), {}, {}
    held = method.optimizer.init(x)
    step = jax.jit(method.optimizer.update)
    for t in range(30):
        grads = {name: np.float32(draw.normal(size=np.shape(a))) for name, a in x.items()}
        moves, held = step(grads, held, x)
        part = 0.1 + 0.9 * (1 + np.cos(np.pi * min(t / 20, 1))) / 2  # over ``steps``, then a tenth
        for name, rate in (("images", 0.02), ("labels", 0.005)):
            g = np.float64(grads[name])
            m[name] = 0.9 * m.get(name, 0.0) + 0.1 * g
            v[name] = 0.999 * v.get(name, 0.0) + 0.001 * g**2
            u = m[name] / (1 - 0.9 ** (t + 1)) / (np.sqrt(v[name] / (1 - 0.999 ** (t + 1))) + 1e-6)
            wanted = -rate * part * np.linalg.norm(x[name]) / np.linalg.norm(u) * u
            np.testing.assert_allclose(moves[name], wanted, rtol=2e-4, atol=1e-7)
            size = np.linalg.norm(moves[name]) / np.linalg.norm(x[name])
            np.testing.assert_allclose(size, rate * part, rtol=1e-4)
        x = optax.apply_updates(x, moves)


def test_going_on_takes_the_schedule_that_was_begun():
    first, _ = config.resolve(config.load("frepo", {"data.name": "digits", "steps": 10}).config)
    assert first.decay_steps == 10
    longer = {"data.name": "digits", "steps": 20}
    other, _ = config.resolve(config.load("frepo", longer).config)
    with pytest.raises(BadInput, match="decay_steps was 10, now 20"):
        config.validate_resume(config.flat(first), other)
    same, _ = config.resolve(config.load("frepo", longer | {"decay_steps": 10}).config)
    assert [change.name for change in config.validate_resume(config.flat(first), same)] == ["steps"]


def test_the_pool_has_batch_norm_and_the_tested_nets_none(made, work_of):
    context, _, pool = made
    assert "norm2" in pool.net.init(jax.random.key(0))["batch_stats"]
    assert "batch_stats" not in context.net.init(jax.random.key(0))
    own = work_of(pool_norm="own")
    net = frepo.pool_net(own.config, own.problem)
    assert "batch_stats" not in net.init(jax.random.key(0))
    with pytest.raises(BadInput, match="pool_norm"):
        config.resolve(
            config.load(
                "frepo", {"data.name": "cifar10", "net.name": "MLP", "pool_norm": "batch"}
            ).config
        )


def test_recipe_is_the_published_training(made):
    _, method, _ = made
    dset = method.distilled(method.init(0), 7)
    train = dset.recipe["train"]
    assert dset.label_kind == "centred" and train["loss"] == "squared_error"
    assert (train["optimizer"], train["lr"], train["batch"]) == ("adam", 0.01, 6)
    planned = train_eval.plan(dset)
    assert planned.steps == 1000 and planned.recipe.optimizer == "adam"
    rates = np.array(planned.lr)
    t = np.arange(1000)
    np.testing.assert_allclose(rates[:500], 0.01 * t[:500] / 500, rtol=1e-6)
    fall = 0.01 + 0.99 * (1 + np.cos(np.pi * (t[500:] - 500) / 500)) / 2
    np.testing.assert_allclose(rates[500:], 0.01 * fall, rtol=1e-6)
    assert [frepo.test_steps(n) for n in (10, 30, 100, 200, 500, 1000, 2000, 5000, 9999)] == [
        1000, 1000, 2000, 20000, 5000, 10000, 40000, 40000, 40000,
    ]  # fmt: skip
    assert frepo.test_steps(32) == 2000  # nearer to 100 by ratio


def test_random_images_have_the_labels_that_learning_starts_from(made, monkeypatch):
    context, method, _ = made
    seen = {}

    def caught(net, planned, images, labels, asked, *rest, label, real):
        seen.update(kind=planned.recipe.label_kind, labels=labels, images=images)
        return np.zeros((len(images), 1))

    monkeypatch.setattr(baselines.train_eval, "test_nets", caught)
    state = method.init(0)
    baselines.measure_random(context, method.distilled(state, 0), 2, None)
    assert seen["kind"] == "centred" and seen["images"].shape[1:] == (6, 8, 8, 3)
    for labels in seen["labels"]:
        np.testing.assert_allclose(labels, state.variables["labels"], atol=1e-6)
