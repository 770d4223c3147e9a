"""Training by a recipe against plain loops written out here."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import nets
from jdd.inner import fit

CLASSES, IPC, SHAPE = 3, 4, (6, 6, 1)
N = CLASSES * IPC


def problem():
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.standard_normal((N, *SHAPE)), jnp.float32)
    return nets.make("MLP", SHAPE, CLASSES), images, jnp.repeat(jnp.arange(CLASSES), IPC)


def train(recipe, lr, steps):
    net, images, labels = problem()
    run = fit.make(net, recipe, N)
    keys = fit.Keys(jax.random.key(1), jax.random.key(2))
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
    recipe = fit.Recipe(
        momentum=0.0, weight_decay=0.0, batch=6, classes=CLASSES, rates=True, order="sequential"
    )
    found = train(recipe, rates, 5)
    close(found, by_hand(lambda t: np.arange(6) + 6 * (t % 2), rates, optax.sgd(1.0)))


def test_adam_on_the_whole_set():
    recipe = fit.Recipe(optimizer="adam", weight_decay=0.0, classes=CLASSES)
    found = train(recipe, 0.01, 4)
    # g / |g| makes much of a rounding error where g is almost nothing.
    close(found, by_hand(lambda t: np.arange(N), [0.01] * 4, optax.adam(1.0)), 2e-3)


def test_classwise_batches_have_each_class_alike():
    recipe = fit.Recipe(
        momentum=0.0, weight_decay=0.0, classes=CLASSES, order="classwise", per_class=2
    )
    found = train(recipe, 0.1, 3)

    def rows(step):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(1), 0), step)
        return fit.classwise_rows(key, CLASSES, IPC, 2)

    close(found, by_hand(rows, [0.1] * 3, optax.sgd(1.0)))
    for step in range(5):
        drawn = np.asarray(rows(step))
        assert len(set(drawn)) == 6
        np.testing.assert_array_equal(np.bincount(drawn // IPC), [2, 2, 2])
    some = np.asarray(fit.classwise_rows(jax.random.key(0), CLASSES, IPC, 3, 2))
    assert sorted(np.bincount(some // IPC, minlength=3)) == [0, 3, 3]
