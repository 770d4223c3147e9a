"""Statistics of layers' inputs: NumPy formulas, and derivatives against differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets
from jdd.errors import BadInput
from jdd.matching import statistics
from jdd.nets.order import order


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def norm(x):
    return np.sqrt(np.sum(np.asarray(x) ** 2))


def test_moments_are_numpys():
    x = 3 + draw(3, 4, 5, 2)
    with jax.enable_x64(True):
        mean, var = statistics.moments(jnp.asarray(x))
        np.testing.assert_allclose(mean, x.mean((0, 1, 2)), rtol=1e-13)
        np.testing.assert_allclose(var, x.var((0, 1, 2)), rtol=1e-13)


def test_distance_is_of_norms_and_flat_where_they_vanish():
    a, b, c, d = draw(4, 7)
    with jax.enable_x64(True):
        wanted = norm(a - c) + norm(b - d)
        np.testing.assert_allclose(statistics.distance(a, b, c, d), wanted, rtol=1e-13)
        slopes = jax.grad(statistics.distance, (0, 1))(*map(jnp.asarray, (a, b, a, d)))
        np.testing.assert_array_equal(slopes[0], 0)
        np.testing.assert_allclose(slopes[1], (b - d) / norm(b - d), rtol=1e-12)


def grown(x, size):
    """Bilinear at pixels' centres along axis 1, the edges repeated."""
    old = x.shape[1]
    at = np.clip((np.arange(size) + 0.5) * old / size - 0.5, 0, old - 1)
    lo = np.minimum(np.floor(at).astype(int), old - 1)
    hi, part = np.minimum(lo + 1, old - 1), (at - lo)[None, :, None, None]
    return x[:, lo] * (1 - part) + x[:, hi] * part


@pytest.mark.parametrize(("h", "w", "patch"), [(4, 6, 2), (5, 3, 2), (3, 3, 4), (1, 7, 4)])
def test_patches_have_the_moments_of_their_pixels(h, w, patch):
    x = draw(3, h, w, 2)
    rows, cols = -(-h // patch), -(-w // patch)
    large = grown(grown(x, rows * patch).swapaxes(1, 2), cols * patch).swapaxes(1, 2)
    with jax.enable_x64(True):
        mean, var = statistics.patch_moments(jnp.asarray(x), patch)
        assert mean.shape == var.shape == (rows, cols) and mean.dtype == np.float64
        for r in range(rows):
            for c in range(cols):
                cut = large[:, r * patch : (r + 1) * patch, c * patch : (c + 1) * patch]
                np.testing.assert_allclose(mean[r, c], cut.mean(), atol=1e-12)
                np.testing.assert_allclose(var[r, c], cut.var(), atol=1e-12)


@pytest.fixture(scope="module")
def problem():
    """A net whose running statistics are no longer where they started, images, targets."""
    net = nets.make("ConvNetASwishBN", (8, 8, 1), 3, width=4, depth=2)
    with jax.enable_x64(True):
        variables = jax.tree.map(lambda x: x.astype(jnp.float64), net.init(jax.random.key(0)))
        images, real = jnp.asarray(draw(4, 8, 8, 1)), jnp.asarray(1 + 2 * draw(6, 8, 8, 1, seed=1))
        moved = jax.jit(lambda v, x: net.apply(v, x, train=True).stats)(variables, real)
        variables = {**variables, "batch_stats": moved}

        @jax.jit
        def found(x):
            taps = net.apply(variables, x, taps="all").taps
            convs, norms = order(net, ["conv"]), order(net, ["batch"])
            return taps, statistics.hook_statistics(taps, convs, norms, 4)

        return net, variables, images, found, found(real)[1]


def test_hooks_have_the_statistics_of_their_kind(problem):
    _, _, images, found, _ = problem
    with jax.enable_x64(True):
        taps, hooks = found(images)
        assert set(hooks) == {"conv1", "norm1", "conv2", "norm2"}
        for name, own in hooks.items():
            x = np.asarray(taps[name])
            np.testing.assert_allclose(own["mean"], x.mean((0, 1, 2)), atol=1e-12)
            np.testing.assert_allclose(own["var"], x.var((0, 1, 2)), atol=1e-12)
            patches = {"patch_mean", "patch_var"} if name.startswith("conv") else set()
            assert set(own) == {"mean", "var"} | patches
        x = np.asarray(images)
        corner = x[:, 4:, :4]
        np.testing.assert_allclose(hooks["conv1"]["patch_mean"][1, 0], corner.mean(), atol=1e-12)
        np.testing.assert_allclose(hooks["conv1"]["patch_var"][1, 0], corner.var(), atol=1e-12)


@pytest.mark.parametrize("reduce", statistics.REDUCES)
def test_batch_norm_loss_is_the_distance_to_the_running_statistics(problem, reduce):
    net, variables, images, found, _ = problem
    names = order(net, ["batch"])
    with jax.enable_x64(True):
        taps, _ = found(images)
        loss, by_layer = statistics.batch_norm_loss(
            taps, variables["batch_stats"], names, 10.0, reduce
        )
        wanted = {}
        for name in ("norm1", "norm2"):
            x, own = np.asarray(taps[name]), variables["batch_stats"][name]
            parts = [x.mean((0, 1, 2)) - own["mean"], x.var((0, 1, 2)) - own["var"]]
            wanted[name] = sum(norm(p) if reduce == "norm" else np.mean(p**2) for p in parts)
            np.testing.assert_allclose(by_layer[name], wanted[name], rtol=1e-12)
        np.testing.assert_allclose(loss, 10 * wanted["norm1"] + wanted["norm2"], rtol=1e-12)


def test_an_unknown_reduction_is_refused():
    with pytest.raises(BadInput, match="one of norm, mse"):
        statistics.statistics_loss({}, {}, [], reduce="sum")


def test_nested_running_statistics_are_found_by_path():
    stats = {"norm0": {"mean": 1, "var": 2}, "stage1_1": {"norm1": {"mean": 3, "var": 4}}}
    found = statistics.running(stats, ["stage1_1/norm1", "norm0"])
    assert found == {"stage1_1/norm1": {"mean": 3, "var": 4}, "norm0": {"mean": 1, "var": 2}}


def test_statistics_loss_weighs_the_first_and_leaves_out_the_dropped(problem):
    net, _, images, found, targets = problem
    names = order(net)
    with jax.enable_x64(True):
        hooks = found(images)[1]
        sums = {
            name: sum(norm(hooks[name][key] - targets[name][key]) for key in hooks[name])
            for name in names
        }
        loss, by_hook = statistics.statistics_loss(hooks, targets, names, 10.0)
        for name in names:
            np.testing.assert_allclose(by_hook[name], sums[name], rtol=1e-12)
        np.testing.assert_allclose(loss, sum(sums.values()) + 9 * sums["conv1"], rtol=1e-12)
        # Without the first the second does not count more; a norm that is not named stays.
        keep = {"conv1": jnp.zeros(()), "conv2": jnp.ones(())}

        def dropped(hooks):
            return statistics.statistics_loss(hooks, targets, names, 10.0, keep)[0]

        value, slope = jax.value_and_grad(dropped)(hooks)
        rest = sums["norm1"] + sums["conv2"] + sums["norm2"]
        np.testing.assert_allclose(value, rest, rtol=1e-12)
        assert all(not np.any(x) for x in jax.tree.leaves(slope["conv1"]))
        assert np.any(slope["norm1"]["mean"])


def test_derivatives_by_the_images_agree_with_differences(problem):
    net, variables, images, _, targets = problem
    convs, norms = order(net, ["conv"]), order(net, ["batch"])
    with jax.enable_x64(True):

        @jax.jit
        def both(x):
            def losses(x):
                taps = net.apply(variables, x, taps="all").taps
                hooks = statistics.hook_statistics(taps, convs, norms, 4)
                own = statistics.batch_norm_loss(taps, variables["batch_stats"], norms)[0]
                return own + statistics.statistics_loss(hooks, targets, order(net))[0]

            return jax.value_and_grad(losses)(x)

        v = jnp.asarray(draw(*images.shape, seed=2))
        h = 1e-6
        numeric = (both(images + h * v)[0] - both(images - h * v)[0]) / (2 * h)
        np.testing.assert_allclose(jnp.vdot(both(images)[1], v), numeric, rtol=1e-6)


def small(seed):
    return {"conv1": {"mean": jnp.asarray(draw(3, seed=seed))}, "norm1": {"var": jnp.full(2, 0.5)}}


def test_a_moving_average_has_its_own_value_and_the_statistics_gradient():
    with jax.enable_x64(True):
        first, second = small(1), small(2)
        average = statistics.start(jax.eval_shape(lambda: first))
        value, average = statistics.moving(average, first, 0.8)
        np.testing.assert_allclose(value["conv1"]["mean"], first["conv1"]["mean"], rtol=1e-14)

        def loss(new):
            value, after = statistics.moving(average, new, 0.8)
            return jnp.sum(value["conv1"]["mean"] ** 2), (value, after)

        (_, (value, after)), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(second)
        mixed = 0.8 * first["conv1"]["mean"] + 0.2 * second["conv1"]["mean"]
        np.testing.assert_allclose(value["conv1"]["mean"], mixed, rtol=1e-12)
        np.testing.assert_allclose(after.value["conv1"]["mean"], mixed, rtol=1e-12)
        # d value / d S is 1, not the average's 1 - alpha.
        np.testing.assert_allclose(slope["conv1"]["mean"], 2 * mixed, rtol=1e-12)


def test_a_moving_average_may_start_at_zero():
    with jax.enable_x64(True):
        new = small(1)
        value, after = statistics.moving(statistics.start(new), new, 0.8, zero_start=True)
        np.testing.assert_allclose(value["conv1"]["mean"], 0.2 * new["conv1"]["mean"], rtol=1e-12)
        np.testing.assert_allclose(after.value["norm1"]["var"], 0.1, rtol=1e-12)


def test_a_dropped_hook_leaves_its_average_and_starts_with_its_first_statistics():
    out, kept = {"conv1": jnp.zeros(())}, {"conv1": jnp.ones(())}
    with jax.enable_x64(True):
        first, second, third = small(1), small(2), small(3)
        _, average = statistics.moving(statistics.start(first), first, 0.8, out)
        assert not average.seen["conv1"] and average.seen["norm1"]
        np.testing.assert_array_equal(average.value["conv1"]["mean"], 0)
        np.testing.assert_array_equal(average.value["norm1"]["var"], 0.5)
        # Not 0.2 of it, though it is the second step.
        _, average = statistics.moving(average, second, 0.8, kept)
        np.testing.assert_array_equal(average.value["conv1"]["mean"], second["conv1"]["mean"])
        _, average = statistics.moving(average, third, 0.8, out)
        np.testing.assert_array_equal(average.value["conv1"]["mean"], second["conv1"]["mean"])
