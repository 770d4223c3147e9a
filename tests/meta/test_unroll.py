"""The meta-gradient against float64 finite differences and against ordinary reverse mode."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.augment import dsa
from jdd.errors import BadInput
from jdd.matching.losses import cross_entropy
from jdd.matching.trajectory import trajectory_distance
from jdd.meta import unroll
from jdd.training import optimisers

STEPS, CLASSES, SHAPE = 3, 3, (8, 8, 3)


def double(tree):
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), tree)


def make_loss(how: str, strategy: str, whiten: bool):
    """Return ``f(images, lr)``: the trajectory distance of a student of three steps."""
    # Sigmoid: finite differences of a ReLU net can straddle a kink.
    net = nets.make("ConvNet", SHAPE, CLASSES, width=4, depth=2, act="sigmoid")
    start = double(net.init(jax.random.key(0))["params"])
    target = double(net.init(jax.random.key(1))["params"])
    y = jax.nn.one_hot(jnp.arange(CLASSES), CLASSES, dtype=jnp.float64)
    d = int(np.prod(SHAPE))
    w = np.eye(d) + 0.3 * np.random.default_rng(0).standard_normal((d, d)) / np.sqrt(d)
    matrix = jnp.asarray(w @ w.T) if whiten else None

    def inner(theta, images, fixed):
        x = images if matrix is None else (images.reshape(-1, d) @ matrix).reshape(images.shape)
        x = dsa.dsa(fixed, x, strategy)
        return cross_entropy(net.apply({"params": theta}, x, train=True).logits, y)

    def loss(images, lr):
        keys = jax.random.split(jax.random.key(3), STEPS)
        rates = {"lr": jnp.broadcast_to(lr, (STEPS,))}
        student = unroll.unroll(inner, optimisers.sgd(), start, rates, images, keys, how)
        return trajectory_distance(student, target, start)

    return loss


def images_and_rate():
    draw = np.random.default_rng(1)
    return jnp.asarray(draw.standard_normal((CLASSES, *SHAPE))), jnp.asarray(0.7)


@pytest.mark.parametrize(
    "strategy, whiten",
    [
        pytest.param("none", True, marks=pytest.mark.slow, id="zca"),
        pytest.param("color_crop_cutout_flip_scale_rotate", False, id="dsa"),
    ],
)
def test_meta_gradient_is_exact(strategy, whiten):
    with jax.enable_x64(True):
        x, lr = images_and_rate()
        exact = jax.jit(jax.grad(make_loss("mixed", strategy, whiten), argnums=(0, 1)))(x, lr)
        plain = jax.jit(jax.grad(make_loss("reverse", strategy, whiten), argnums=(0, 1)))(x, lr)
        for a, b in zip(exact, plain, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10 * float(jnp.abs(b).max()))
        loss = jax.jit(make_loss("mixed", strategy, whiten))
        draw = np.random.default_rng(2)
        for _ in range(3):
            v = jnp.asarray(draw.standard_normal(x.shape))
            h = 1e-5
            numeric = (loss(x + h * v, lr) - loss(x - h * v, lr)) / (2 * h)
            np.testing.assert_allclose(jnp.vdot(exact[0], v), numeric, rtol=1e-5)
        numeric = (loss(x, lr + 1e-6) - loss(x, lr - 1e-6)) / 2e-6
        np.testing.assert_allclose(exact[1], numeric, rtol=1e-5)


def scalar_problem(how: str, estimator: str = "exact"):
    """The facts' scalar case: l = (theta x - 1)^2 / 2, beta 0.1, theta0 = 1, theta* = 0.5."""

    def inner(theta, xs, j):
        return 0.5 * (theta * xs[j] - 1) ** 2

    def loss(xs):
        rates = {"lr": jnp.full((2,), 0.1)}
        end = unroll.unroll(
            inner,
            optimisers.sgd(),
            jnp.asarray(1.0),
            rates,
            xs,
            jnp.arange(2),
            how,
            None,
            estimator,
        )
        return (end - 0.5) ** 2

    return loss


@pytest.mark.parametrize("how", unroll.WAYS)
def test_known_scalar_case(how):
    with jax.enable_x64(True):
        grad = jax.grad(scalar_problem(how))(jnp.asarray([1.0, 2.0]))
        np.testing.assert_allclose(grad, [-0.036, -0.18], rtol=1e-9)


def test_tesla_departs_in_the_known_scalar_case():
    """The last image's gradient is the same; the first one's effect on step 2 is left out."""
    with jax.enable_x64(True):
        grad = jax.grad(scalar_problem("mixed", "tesla"))(jnp.asarray([1.0, 2.0]))
        np.testing.assert_allclose(grad, [-0.060, -0.18], rtol=1e-9)


OPTIMIZERS = {
    "sgd": (optimisers.sgd(), 0.7),
    "decayed": (optimisers.sgd(weight_decay=0.05), 0.7),
    "momentum": (optimisers.sgd_momentum(0.9, 0.01), 0.3),
    "adam": (optimisers.adam(), 0.02),
}
SUITE = [pytest.param(n, marks=[pytest.mark.slow] * (n != "adam")) for n in OPTIMIZERS]


def trained(name: str, how: str, estimator: str = "exact", window: int = 0):
    """Return ``f(data, rates)``: a real loss after four steps on augmented images."""
    net = nets.make("ConvNet", SHAPE, CLASSES, width=3, depth=1, act="sigmoid")
    start = double(net.init(jax.random.key(0))["params"])
    real = jnp.asarray(np.random.default_rng(5).standard_normal((4, *SHAPE)))
    truth = jax.nn.one_hot(jnp.arange(4) % CLASSES, CLASSES, dtype=jnp.float64)

    def inner(theta, data, key):
        x = dsa.dsa(key, data["images"], "color_scale")
        logits = net.apply({"params": theta}, x, train=True).logits
        return cross_entropy(logits, jax.nn.softmax(data["labels"]))

    def loss(data, rates, first=None):
        keys = jax.random.split(jax.random.key(3), 4)
        end = unroll.unroll(
            inner, OPTIMIZERS[name][0], start, {"lr": rates}, data, keys, how, None, estimator,
            window, first,
        )  # fmt: skip
        return cross_entropy(net.apply({"params": end}, real, train=True).logits, truth)

    return loss


@functools.cache
def gradient(*args):
    """Compile once for all tests."""
    return jax.jit(jax.grad(trained(*args), argnums=(0, 1)))


def problem_data(name: str):
    draw = np.random.default_rng(1)
    images = jnp.asarray(draw.standard_normal((CLASSES, *SHAPE)))
    labels = jnp.asarray(draw.standard_normal((CLASSES, CLASSES)))
    rates = jnp.asarray(OPTIMIZERS[name][1] * np.asarray([1.0, 0.8, 1.2, 0.9]))
    return {"images": images, "labels": labels}, rates


def close(found, wanted, tolerance):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * float(jnp.abs(b).max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITE)
def test_meta_gradient_through_each_optimiser(name):
    """Finite differences wrt images, labels and every step's rate; the three ways to 1e-10."""
    with jax.enable_x64(True):
        args = problem_data(name)
        found = {how: gradient(name, how)(*args) for how in unroll.WAYS}
        for how in unroll.WAYS:
            close(found[how], found["reverse"], 1e-10)
        loss = jax.jit(trained(name, "reverse"))
        leaves, tree = jax.tree.flatten(args)
        draw = np.random.default_rng(2)
        for i, leaf in enumerate(leaves):
            v = jnp.asarray(draw.standard_normal(leaf.shape))
            h = 1e-5 * float(jnp.abs(leaf).max())
            ends = [
                loss(*jax.tree.unflatten(tree, [*leaves[:i], leaf + s * h * v, *leaves[i + 1 :]]))
                for s in (1, -1)
            ]
            exact = jnp.vdot(jax.tree.leaves(found["mixed"])[i], v)
            np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


@pytest.mark.parametrize("estimator", ["exact", pytest.param("tesla", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "name",
    ["adam", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "decayed", "momentum"))],
)
def test_parts_of_a_batch_are_the_batch(name, estimator):
    """One image at a time gives the gradient of all three: images, labels and rates."""
    net = nets.make("ConvNet", SHAPE, CLASSES, width=3, depth=1, act="sigmoid")
    with jax.enable_x64(True):
        start = double(net.init(jax.random.key(0))["params"])

        def rows(data, key):
            x = dsa.dsa(key, data["images"], "color_scale")
            return {"x": x, "y": jax.nn.softmax(data["labels"])}

        def inner(theta, rows, key):
            logits = net.apply({"params": theta}, rows["x"], train=True).logits
            return -jnp.sum(rows["y"] * jax.nn.log_softmax(logits)) / CLASSES

        def loss(data, rates, part):
            end = unroll.unroll(
                unroll.Inner(inner, rows, part), OPTIMIZERS[name][0], start, {"lr": rates}, data,
                jax.random.split(jax.random.key(3), 4), estimator=estimator,
            )  # fmt: skip
            return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(end))

        grad = jax.jit(jax.grad(loss, argnums=(0, 1)), static_argnums=2)
        data = problem_data(name)
        close(grad(*data, 1), grad(*data, 0), 1e-9)  # sums in another order
        if estimator == "exact":

            def plain(theta, data, key):
                return inner(theta, rows(data, key), key)

            def reverse(data, rates):
                keys = jax.random.split(jax.random.key(3), 4)
                args = (OPTIMIZERS[name][0], start, {"lr": rates}, data, keys)
                end = unroll.unroll(plain, *args, "reverse")
                return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(end))

            close(grad(*data, 1), jax.jit(jax.grad(reverse, argnums=(0, 1)))(*data), 1e-9)


@pytest.mark.parametrize(
    "how", [pytest.param(way, marks=[pytest.mark.slow] * (way != "mixed")) for way in unroll.WAYS]
)
def test_the_whole_window_is_the_exact_gradient(how):
    with jax.enable_x64(True):
        args = problem_data("momentum")
        close(
            gradient("momentum", how, "truncated", 4)(*args),
            gradient("momentum", how)(*args),
            1e-10,
        )


@pytest.mark.parametrize("name", ["adam", pytest.param("momentum", marks=pytest.mark.slow)])
def test_window_is_exact_from_where_it_starts(name):
    with jax.enable_x64(True):
        data, rates = problem_data(name)
        part = gradient(name, "mixed", "truncated", 2)
        at_end, middle = part(data, rates), part(data, rates, jnp.asarray(1))
        assert not np.any(at_end[1][:2]) and np.all(at_end[1][2:])
        assert not np.any(middle[1][3:]) and not np.any(middle[1][:1]) and np.all(middle[1][1:3])
        # A rate's gradient inside the window is complete: nothing before it depends on the rate.
        np.testing.assert_allclose(
            at_end[1][2:], gradient(name, "mixed")(data, rates)[1][2:], rtol=1e-10
        )


@pytest.mark.parametrize(
    "name",
    ["adam", *(pytest.param(n, marks=pytest.mark.slow) for n in ("sgd", "decayed", "momentum"))],
)
def test_tesla_is_exact_where_nothing_follows(name):
    """The frozen adjoint is the exact one in the last step, and not before."""
    with jax.enable_x64(True):
        args = problem_data(name)
        tesla, exact = gradient(name, "mixed", "tesla")(*args), gradient(name, "mixed")(*args)
        np.testing.assert_allclose(tesla[1][3], exact[1][3], rtol=1e-10)
        assert not np.allclose(tesla[0]["images"], exact[0]["images"], rtol=1e-3)


def test_tesla_against_its_published_formula():
    """(2 / D) d/dS (beta^2 G - beta r) . g_j and (2 / D) (beta G - r) . G, G and theta_j held."""
    net = nets.make("ConvNet", SHAPE, CLASSES, width=3, depth=1)
    with jax.enable_x64(True):
        start, target = (double(net.init(jax.random.key(i))["params"]) for i in (0, 1))
        images = jnp.asarray(np.random.default_rng(1).standard_normal((CLASSES, *SHAPE)))
        y, beta, keys = jnp.eye(CLASSES), jnp.asarray(0.3), jax.random.split(jax.random.key(3), 3)

        def inner(theta, x, key):
            x = dsa.dsa(key, x, "flip_scale")
            return cross_entropy(net.apply({"params": theta}, x, train=True).logits, y)

        def loss(x, lr):
            rates = {"lr": jnp.broadcast_to(lr, (3,))}
            end = unroll.unroll(inner, optimisers.sgd(), start, rates, x, keys, estimator="tesla")
            return trajectory_distance(end, target, start)

        found = jax.jit(jax.grad(loss, argnums=(0, 1)))(images, beta)
        flat = lambda tree: jnp.concatenate([p.ravel() for p in jax.tree.leaves(tree)])  # noqa: E731
        theta, thetas, total = start, [], 0.0
        grad = jax.jit(jax.grad(inner))
        for key in keys:
            g = grad(theta, images, key)
            thetas.append(theta)
            total = total + flat(g)
            theta = jax.tree.map(lambda p, d: p - beta * d, theta, g)
        r = flat(start) - flat(target)
        v, d = beta**2 * total - beta * r, jnp.sum(r**2)

        def projected(x, theta, key):
            return flat(jax.grad(inner)(theta, x, key)) @ v

        pull = jax.jit(jax.grad(projected))
        wanted = sum(pull(images, theta, key) for theta, key in zip(thetas, keys, strict=True))
        close(found, (2 / d * wanted, 2 / d * (beta * total - r) @ total), 1e-10)


def test_adam_has_a_gradient_where_the_inner_one_is_zero():
    """A weight without any gradient has v = 0, where the root's derivative is infinite."""

    def inner(theta, data, j):
        return jnp.sum(jnp.sin(theta[:2] * data)) * (1.0 + j)

    def loss(data):
        rates = {"lr": jnp.full((3,), 0.1)}
        end = unroll.unroll(inner, optimisers.adam(), jnp.ones(3), rates, data, jnp.arange(3.0))
        return jnp.sum(end**2)

    grad = jax.grad(loss)(jnp.asarray([0.3, 0.7]))
    assert np.all(np.isfinite(grad)) and np.all(grad != 0)


def test_window_that_does_not_fit_is_bad_input():
    with jax.enable_x64(True):
        with pytest.raises(BadInput, match="config.window: 5; 1 to 4"):
            trained("sgd", "mixed", "truncated", 5)(*problem_data("sgd"))
        with pytest.raises(BadInput, match="config.estimator.*tesla"):
            trained("sgd", "mixed", "telsa")(*problem_data("sgd"))


def test_an_optimiser_that_is_not_linear_in_the_gradient():
    """The rule keeps g where the update bends it."""

    def update(g, state, theta, hyper):
        return jax.tree.map(lambda p, d: p - hyper["lr"] * jnp.tanh(d), theta, g), state + 1

    bent = optimisers.InnerOptimizer(lambda theta: jnp.zeros(()), update)

    def inner(theta, data, j):
        return jnp.sum(jnp.sin(theta * data) ** 2) * (1 + j)

    def loss(data, lrs, how):
        end = unroll.unroll(inner, bent, jnp.arange(3.0), {"lr": lrs}, data, jnp.arange(2.0), how)
        return jnp.sum(end**2)

    with jax.enable_x64(True):
        args = (jnp.asarray([0.3, 0.7, 1.1]), jnp.asarray([0.1, 0.2]))
        mixed = jax.grad(loss, argnums=(0, 1))(*args, "mixed")
        plain = jax.grad(loss, argnums=(0, 1))(*args, "reverse")
        for a, b in zip(mixed, plain, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10)


def test_unknown_way_is_bad_input():
    with pytest.raises(BadInput, match="config.unroll.*mixed"):
        scalar_problem("revers")(jnp.asarray([1.0, 2.0]))
