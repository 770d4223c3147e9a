"""Gradient matching: the distances against NumPy formulas, their derivative against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.matching import gradient
from jdd.matching.losses import cross_entropy_sum


def trees(seed):
    draw = np.random.default_rng(seed)
    shapes = {"conv": {"kernel": (3, 3, 2, 4), "bias": (4,)}, "norm": {"scale": (4, 4, 2)}}
    shapes["head"] = {"kernel": (5, 3)}
    return jax.tree.map(
        lambda s: draw.standard_normal(s), shapes, is_leaf=lambda s: isinstance(s, tuple)
    )


def test_per_unit_is_one_minus_the_cosine_of_every_output_unit():
    a, b = trees(0), trees(1)
    total = 0.0
    for layer, name in (("conv", "kernel"), ("norm", "scale"), ("head", "kernel")):
        x, y = a[layer][name], b[layer][name]
        for unit in range(x.shape[-1]):
            u, v = x[..., unit].ravel(), y[..., unit].ravel()
            total += 1 - u @ v / (np.linalg.norm(u) * np.linalg.norm(v) + 1e-6)
    with jax.enable_x64(True):
        np.testing.assert_allclose(gradient.per_unit(a, b), total, rtol=1e-12)
        # A bias does not count.
        other = {**a, "conv": {**a["conv"], "bias": a["conv"]["bias"] + 9}}
        np.testing.assert_allclose(gradient.per_unit(other, b), total, rtol=1e-12)
        # Length does not matter, direction does: 4 + 2 + 3 units.
        twice = jax.tree.map(lambda x: 2 * x, a)
        np.testing.assert_allclose(gradient.per_unit(a, twice), 0, atol=1e-5)
        turned = jax.tree.map(lambda x: -x, a)
        np.testing.assert_allclose(gradient.per_unit(a, turned), 18, atol=1e-5)


def test_squared_and_cosine_are_of_one_long_vector():
    a, b = trees(0), trees(1)
    u, v = (np.concatenate([x.ravel() for x in jax.tree.leaves(t)]) for t in (a, b))
    with jax.enable_x64(True):
        np.testing.assert_allclose(gradient.squared(a, b), np.sum((u - v) ** 2), rtol=1e-12)
        wanted = 1 - u @ v / (np.linalg.norm(u) * np.linalg.norm(v) + 1e-6)
        np.testing.assert_allclose(gradient.cosine(a, b), wanted, rtol=1e-12)


def test_a_unit_without_a_gradient_counts_one():
    a, b = ({"kernel": jnp.ones((2, 3))} for _ in range(2))
    a["kernel"] = a["kernel"].at[:, 1].set(0.0)
    value, slope = jax.value_and_grad(gradient.per_unit)(a, b)
    np.testing.assert_allclose(value, 1, atol=1e-5)
    np.testing.assert_allclose(slope["kernel"][:, 1], -1e6, rtol=1e-5)
    np.testing.assert_allclose(slope["kernel"][:, 0], 0, atol=1e-5)


@pytest.fixture(scope="module")
def problem():
    net = nets.make("ConvNet", (8, 8, 1), 3, width=4, depth=2, act="swish")
    with jax.enable_x64(True):
        params = jax.tree.map(lambda x: x.astype(jnp.float64), net.init(jax.random.key(0)))
        draw = np.random.default_rng(0)
        real, own = (jnp.asarray(draw.standard_normal((n, 8, 8, 1))) for n in (6, 4))

    def loss(params, rows):
        logits = net.apply({"params": params}, rows["images"]).logits
        return cross_entropy_sum(logits, jax.nn.one_hot(rows["labels"], 3), rows["weight"])

    def rows(n):
        return {"labels": jnp.arange(n) % 3, "weight": jnp.full((n,), 1 / n)}

    return loss, params["params"], real, own, rows


@pytest.mark.slow
def test_parts_of_a_batch_sum_to_its_gradient(problem, monkeypatch):
    loss, params, real, own, rows = problem
    with jax.enable_x64(True):
        batch = {"images": real, **rows(6)}
        other = {"images": own, **rows(4)}
        whole, second = jax.jit(lambda p: (jax.grad(loss)(p, batch), jax.grad(loss)(p, other)))(
            params
        )

        @jax.jit
        def found(p):
            parts = gradient.weight_gradient(loss, p, batch, 2)
            # By themselves, and in one loop, with two of ten rows there only to fill a part.
            apart = gradient.both_gradients(loss, p, other, batch, (4, 6))
            monkeypatch.setattr(gradient, "MOST_PADDING", 0.2)
            return parts, apart, gradient.both_gradients(loss, p, other, batch, (4, 3))

        parts, apart, together = found(params)
        for one, wanted in (
            (parts, whole), (apart[0], second), (apart[1], whole), (together[0], second),
            (together[1], whole),
        ):  # fmt: skip
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), wanted, one)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] * (n != "unit")) for n in gradient.DISTANCES],
)
def test_matched_has_the_derivative_of_the_distance(problem, name):
    loss, params, real, own, rows = problem
    distance = gradient.DISTANCES[name]
    with jax.enable_x64(True):

        @jax.jit
        def both(images):
            given = {"images": real, **rows(6)}
            target = jax.grad(loss)(params, given)

            def plain(x):  # whose derivative is of a derivative
                return distance(jax.grad(loss)(params, {"images": x, **rows(4)}), target)

            match = gradient.matched(loss, distance, (2, 3))
            ours = jax.value_and_grad(lambda x: 3 * match(x, rows(4), params, given))
            return *jax.value_and_grad(plain)(images), *ours(images)

        value, slope, again, own_slope = both(own)
        v = jnp.asarray(np.random.default_rng(1).standard_normal(own.shape))
        h = 1e-6
        numeric = (both(own + h * v)[0] - both(own - h * v)[0]) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(slope, v), numeric, rtol=1e-5)
        np.testing.assert_allclose(again, 3 * value, rtol=1e-10)
        np.testing.assert_allclose(own_slope, 3 * slope, rtol=1e-7, atol=1e-12)
