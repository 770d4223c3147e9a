"""Training by a recipe against plain loops written out here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import nets
from jdd.augment import dsa
from jdd.training import orders, schedules, trainer
from jdd.training.recipe import Recipe

CLASSES, IPC, SHAPE = 3, 4, (6, 6, 1)
N = CLASSES * IPC


def test_schedule_is_a_ramp_and_a_cosine():
    """Against optax's, whose cosine is over what the ramp leaves."""
    schedule = {"kind": "warmup_cosine", "warmup": 50, "final": 0.01}
    for steps, ramp in ((200, 50), (60, 30), (1, 0)):
        rates = schedules.from_json(schedule).rates(0.3, steps)
        known = optax.warmup_cosine_decay_schedule(0.0, 0.3, ramp, steps, end_value=0.003)
        np.testing.assert_allclose(rates, [float(known(t)) for t in range(steps)], rtol=1e-4)


def problem():
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.standard_normal((N, *SHAPE)), jnp.float32)
    return nets.make("MLP", SHAPE, CLASSES), images, jnp.repeat(jnp.arange(CLASSES), IPC)


def train(recipe, lr, steps):
    net, images, labels = problem()
    run = trainer.make(net, recipe, N)
    keys = orders.Keys(jax.random.key(1), jax.random.key(2))
    carry = run.init(jax.random.key(0))
    advance = jax.jit(run.advance)
    carry, _ = advance(carry, keys, images, labels, jnp.asarray(lr, jnp.float32), 0, steps)
    return carry["variables"]["params"]


def by_hand(rows_of, rates, transform):
    net, images, labels = problem()
    params = net.init(jax.random.key(0))["params"]
    state = transform.init(params)

    @jax.jit
    def gradient(params, x, y):
        def loss(p):
            logits = net.apply({"params": p}, x, train=True).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        return jax.grad(loss)(params)

    for step, rate in enumerate(rates):
        rows = rows_of(step)
        moves, state = transform.update(gradient(params, images[rows], labels[rows]), state, params)
        params = jax.tree.map(lambda p, m, rate=rate: p + rate * m, params, moves)
    return params


def close(a, b, atol=2e-6):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=atol), a, b)


def test_sequential_batches_with_a_rate_for_each_step():
    rates = [0.1, 0.2, 0.05, 0.3, 0.1]
    recipe = Recipe(momentum=0.0, weight_decay=0.0, batch=6, classes=CLASSES, order="sequential")
    found = train(recipe, rates, 5)
    close(found, by_hand(lambda t: np.arange(6) + 6 * (t % 2), rates, optax.sgd(1.0)))


def test_adam_on_the_whole_set():
    recipe = Recipe(optimizer="adam", weight_decay=0.0, classes=CLASSES)
    found = train(recipe, 0.01, 4)
    # g / |g| makes much of a rounding error where g is almost nothing.
    close(found, by_hand(lambda t: np.arange(N), [0.01] * 4, optax.adam(1.0)), 2e-3)


def test_muon_trains_nets_under_vmap():
    """The optimiser's state goes through the loop and over nets, and the loss falls."""
    net, images, labels = problem()
    recipe = Recipe(optimizer="muon", weight_decay=0.01, classes=CLASSES)
    run = trainer.make(net, recipe, N)

    def losses(key):
        keys = orders.Keys(key, jax.random.key(2))
        carry, rate = run.init(key), jnp.asarray(0.01)
        carry, first = run.advance(carry, keys, images, labels, rate, 0, 1)
        carry, _ = run.advance(carry, keys, images, labels, rate, 1, 9)
        return first, run.advance(carry, keys, images, labels, rate, 9, 10)[1]

    first, later = jax.jit(jax.vmap(losses))(jax.random.split(jax.random.key(0), 2))
    assert np.all(later < 0.8 * first)


def test_classwise_batches_have_each_class_alike():
    recipe = Recipe(momentum=0.0, weight_decay=0.0, classes=CLASSES, order="classwise", per_class=2)
    found = train(recipe, 0.1, 3)

    def rows(step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), step)
        return orders.classwise_rows(key, CLASSES, IPC, 2)

    close(found, by_hand(rows, [0.1] * 3, optax.sgd(1.0)))
    for step in range(5):
        drawn = np.asarray(rows(step))
        assert len(set(drawn)) == 6
        np.testing.assert_array_equal(np.bincount(drawn // IPC), [2, 2, 2])
    some = np.asarray(orders.classwise_rows(jax.random.key(0), CLASSES, IPC, 3, 2))
    assert sorted(np.bincount(some // IPC, minlength=3)) == [0, 3, 3]


def test_flat_gradient_against_its_formula():
    draw = np.random.default_rng(0)
    matrix = draw.standard_normal((5, 5))
    w, rho, alpha = draw.standard_normal(5), 0.3, 0.7

    def slope(x):  # of x^T (M + M^T) x / 2 + sum x^4 / 4
        return (matrix + matrix.T) @ x + x**3

    g = slope(w)
    there = slope(w + rho * w**2 * g / np.linalg.norm(w * g))
    unit = there / np.linalg.norm(there)
    expected = there - alpha * (g - (g @ unit) * unit)
    with jax.enable_x64(True):
        tree = {"a": jnp.asarray(w[:2]), "b": jnp.asarray(w[2:])}

        def gradient(p):
            x = jnp.concatenate([p["a"], p["b"]])
            y = jnp.asarray(matrix + matrix.T) @ x + x**3
            return {"a": y[:2], "b": y[2:]}

        found = trainer.flat_gradient(gradient, tree, rho, alpha)
        np.testing.assert_allclose(np.concatenate([found["a"], found["b"]]), expected, rtol=1e-12)
        nothing = jax.tree.map(jnp.zeros_like, tree)
        frozen = trainer.flat_gradient(gradient, nothing, rho, alpha)
        jax.tree.map(np.testing.assert_array_equal, frozen, nothing)


def test_sam_takes_both_gradients_on_one_augmented_batch():
    net, images, labels = problem()
    recipe = Recipe(
        momentum=0.0, weight_decay=0.0, classes=CLASSES, strategy="color_crop", sam_rho=0.1
    )
    run, keys = trainer.make(net, recipe, N), orders.Keys(jax.random.key(1), jax.random.key(2))
    carry, lr = run.init(jax.random.key(0)), jnp.float32(0.1)
    moved, _ = jax.jit(run.advance)(carry, keys, images, labels, lr, 0, 1)
    op = dsa.draw_op(jax.random.fold_in(keys.ops, 0), recipe.strategy)
    own = jax.random.fold_in(jax.random.fold_in(keys.own, 1), 0)
    x = dsa.apply(op, own, images, recipe.strategy, siamese=False, align_corners=True)

    def loss(p):
        logits = net.apply({"params": p}, x, train=True).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    w = carry["variables"]["params"]
    g = jax.grad(loss)(w)
    norm = optax.global_norm(jax.tree.map(jnp.multiply, w, g))
    there = jax.tree.map(lambda a, b: a + 0.1 * a * a * b / norm, w, g)
    close(
        moved["variables"]["params"],
        jax.tree.map(lambda a, b: a - 0.1 * b, w, jax.grad(loss)(there)),
    )


def test_two_updates_of_the_norms_on_one_batch_are_one_of_0_19():
    _, images, labels = problem()
    net = nets.make("ConvNetBN", SHAPE, CLASSES, width=4, depth=1)
    keys, lr = orders.Keys(jax.random.key(1), jax.random.key(2)), jnp.float32(0.1)
    found = []
    for times in (1, 2):
        run = trainer.make(net, Recipe(classes=CLASSES, norm_updates=times), N)
        carry = run.init(jax.random.key(0))
        carry, _ = jax.jit(run.advance)(carry, keys, images, labels, lr, 0, 1)
        found.append(carry["variables"])
    start = net.init(jax.random.key(0))
    (name,) = start["batch_stats"]
    taps = net.apply(start, images, train=True, taps=True).taps
    x = np.asarray(taps[name], np.float64).reshape(-1, 4)
    read = {"mean": x.mean(0), "var": x.var(0, ddof=1)}
    for times, variables in enumerate(found, 1):
        for key, own in read.items():
            old, new = (np.asarray(v["batch_stats"][name][key]) for v in (start, variables))
            share = 1 - 0.9**times  # 0.1, 0.19
            np.testing.assert_allclose(new, (1 - share) * old + share * own, rtol=1e-5, atol=1e-6)
    close(found[0]["params"], found[1]["params"])


def test_nets_go_together_off_a_cpu_where_a_step_is_small(monkeypatch):
    net = nets.make("ConvNet", (32, 32, 3), 10, width=16)
    one = net.activations(1)
    few, many = (trainer.LIGHT // one, 2 * trainer.LIGHT // one)
    assert not trainer.make(net, Recipe(batch=few, strategy=""), 2 * few).light
    monkeypatch.setattr(trainer.jax, "default_backend", lambda: "gpu")
    trainer.make.cache_clear()
    try:
        for batch, parts, light in ((few, 1, True), (many, 1, False), (many, 2, True)):
            recipe = Recipe(batch=batch, parts=parts, strategy="")
            assert trainer.make(net, recipe, 2 * batch).light == light
    finally:
        trainer.make.cache_clear()
