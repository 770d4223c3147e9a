"""RaT-BPTT against formulas of its own: the window's gradient, the clipping, the draws."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import methods, rng
from jdd.augment import dsa
from jdd.errors import BadInput
from jdd.methods import ratbptt
from tests import runs

KEYS = {
    "method": "ratbptt", "ipc": 2, "net.width": 2, "net.depth": 1, "unroll_steps": 5, "window": 2,
    "batch_real": 7, "lr_student": 0.1, "learn_labels": True, "per_class": 1, "eval.n": 2,
    "classes_per_step": 2, "inits": 2, "data.dsa": "flip_rotate",
}  # fmt: skip


@pytest.fixture(scope="module")
def work_of(toy, tmp_path_factory):
    place = tmp_path_factory.mktemp("rat")
    base = {"data.name": "toy", "data.path": str(toy), **KEYS}
    return lambda **changes: runs.context({**base, **changes}, place)


def stepped(inner, theta, state, g, t, lr, wd):
    """One inner step of each optimiser, as its paper or PyTorch's manual writes it."""
    if inner == "adam":
        m = jax.tree.map(lambda a, d: 0.9 * a + 0.1 * d, state[0], g)
        v = jax.tree.map(lambda a, d: 0.999 * a + 0.001 * d**2, state[1], g)

        def move(p, a, b):
            return p - lr * (a / (1 - 0.9**t)) / (jnp.sqrt(b / (1 - 0.999**t) + 1e-16) + 1e-8)

        return jax.tree.map(move, theta, m, v), (m, v)
    velocity = jax.tree.map(lambda d, p: d + wd * p, g, theta)
    if inner == "momentum":
        velocity = jax.tree.map(lambda v, d: 0.9 * v + d, state[0], velocity)
    return jax.tree.map(lambda p, v: p - lr * v, theta, velocity), (velocity, velocity)


@pytest.mark.parametrize(
    "inner, way, strategy",
    [
        pytest.param("adam", "mixed", "flip_rotate", marks=pytest.mark.slow),
        pytest.param("momentum", "remat", "rotate", marks=pytest.mark.slow),
        pytest.param("sgd", "reverse", "flip", marks=pytest.mark.slow),
    ],
)
def test_gradient_is_that_of_the_window(work_of, inner, way, strategy):
    context = work_of(inner=inner, unroll=way, **{"data.dsa": strategy})
    method, net = methods.make(context.config, context.problem), context.net
    state = method.init(0)
    item = jax.tree.map(lambda x: x[0], context.problem.gather(method.sample(0, 0)))
    start, window, lr, wd = 2, 2, 0.1, 0.0 if inner == "adam" else 5e-4
    key = rng.key(0, "test")
    with jax.enable_x64(True):
        item = item | {"start": np.int32(start)}
        item["real"] = {"images": np.float64(item["real"]["images"]), **_labels(item)}
        variables = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), state.variables)
        variables["images"] = variables["images"] * 8  # at the real images' scale
        init_key, inner_key, real_key = jax.random.split(key, 3)
        keys = jax.random.split(inner_key, 5)

        def entropy(params, images, target, at):
            x = dsa.dsa(at, images, strategy, align_corners=False)
            logits = net.apply({"params": params}, x, train=True).logits
            return -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), 1))

        inner_gradient = jax.jit(jax.grad(entropy))
        outer = jax.jit(entropy)

        def reference(moved):
            params = jax.tree.map(lambda x: x.astype(jnp.float64), net.init(init_key)["params"])
            zeros = jax.tree.map(jnp.zeros_like, params)
            made = (zeros, zeros)
            for j in range(start + window):
                s = moved if j >= start else variables  # what comes before counts as given
                rows = item["rows"][j]
                g = inner_gradient(params, s["images"][rows], s["labels"][rows], keys[j])
                params, made = stepped(inner, params, made, g, j + 1, lr, wd)
            target = jax.nn.one_hot(item["real"]["labels"], 3, dtype=jnp.float64)
            return outer(params, item["real"]["images"], target, real_key)

        value = jax.jit(jax.value_and_grad(lambda v: method.objective(v, {}, item, key)[0]))
        loss, grads = value(variables)
        np.testing.assert_allclose(loss, reference(variables), rtol=1e-9)
        draw, h = np.random.default_rng(0), 1e-6
        for name in ("images", "labels"):
            d = jnp.asarray(draw.standard_normal(variables[name].shape))
            ends = [reference(variables | {name: variables[name] + s * h * d}) for s in (1, -1)]
            exact = jnp.vdot(grads[name], d)
            np.testing.assert_allclose(exact, (ends[0] - ends[1]) / (2 * h), rtol=1e-5)


def _labels(item):
    return {"labels": item["real"]["labels"]}


def test_clipping_follows_the_mean_norm():
    clip = ratbptt.clip_by_mean_norm(2.0, 0.9)
    state, mean = clip.init(jnp.zeros(2)), None
    for norm in (1.0, 1.0, 50.0, 0.1, 3.0):
        g = jnp.asarray([0.6, -0.8]) * norm
        mean = norm if mean is None else 0.9 * mean + 0.1 * norm
        out, state = clip.update(g, state)
        np.testing.assert_allclose(out, g * min(1.0, 2 * mean / norm), rtol=1e-5)
    zero, _ = clip.update(jnp.zeros(2), clip.init(jnp.zeros(2)))
    np.testing.assert_array_equal(zero, np.zeros(2))
    off = ratbptt.clip_by_mean_norm(0.0, 0.9)
    np.testing.assert_array_equal(off.update(g, off.init(g))[0], g)


def test_batches_hold_different_images_of_different_classes():
    rows = ratbptt.class_rows(np.random.default_rng(0), (4, 50), 5, 6, 3, 2)
    assert rows.shape == (4, 50, 6) and rows.min() == 0 and rows.max() == 29
    for batch in rows.reshape(-1, 6):
        assert len(set(batch)) == 6
        classes, counts = np.unique(batch // 6, return_counts=True)
        assert len(classes) == 3 and set(counts) == {2}


def test_window_is_drawn_once_an_epoch_a_step_or_never(work_of):
    def starts(**changes):
        context = work_of(unroll_steps=40, window=10, **changes)
        method = methods.make(context.config, context.problem)
        return np.stack([method.sample(0, step)["start"] for step in range(40)])

    epoch = starts(batch_real=20)  # 60 images, 2 items a step: 3 batches an epoch
    assert epoch.min() >= 0 and epoch.max() <= 30 and len(set(epoch[:, 0])) > 5
    for item in range(2):
        of = [(2 * step + item) // 3 for step in range(40)]
        assert all(epoch[a, item] == epoch[a + 1, item] for a in range(39) if of[a] == of[a + 1])
    assert len(set(starts(window_draw="step")[:, 0])) > 10
    assert set(starts(window_draw="end").ravel()) == {30}


def test_images_start_with_length_one_and_labels_never_fall_below_zero(work_of):
    context = work_of()
    method = methods.make(context.config, context.problem)
    state = method.init(0)
    lengths = np.linalg.norm(np.asarray(state.variables["images"]).reshape(6, -1), axis=1)
    np.testing.assert_allclose(lengths, 1, rtol=1e-5)
    labels = state.variables["labels"]
    np.testing.assert_array_equal(labels, np.repeat(np.eye(3), 2, axis=0))
    moved = state._replace(variables=state.variables | {"labels": labels - 0.25})
    after = method.advance(moved, jax.random.key(0)).variables["labels"]
    np.testing.assert_allclose(after, np.maximum(labels - 0.25, 0))


def test_set_is_trained_as_inside(work_of):
    context = work_of(learn_labels=False)
    method = methods.make(context.config, context.problem)
    dset = method.distilled(method.init(0), 7)
    train = dset.recipe["train"]
    assert dset.label_kind == "hard" and dset.lr is None
    assert (train["optimizer"], train["lr"], train["steps"]) == ("adam", 0.1, 5)
    assert (train["order"], train["per_class"], train["classes_per_step"]) == ("classwise", 1, 2)
    assert train["weight_decay"] == 0 and train["drop"] is None
    whole = work_of(per_class=0, classes_per_step=0, inner="momentum").config
    train = ratbptt.training(whole, 3)
    assert (train["optimizer"], train["momentum"], train["weight_decay"]) == ("sgd", 0.9, 5e-4)
    assert (train["order"], train["batch"]) == ("shuffled", 6)


@pytest.mark.parametrize(
    "changes, words", [({"window": 6}, "1 to 5"), ({"per_class": 3}, "1 to 2"),
                       ({"classes_per_step": 4}, "1 to 3")]
)  # fmt: skip
def test_sizes_that_do_not_fit_are_refused(work_of, changes, words):
    with pytest.raises(BadInput, match=words):
        context = work_of(**changes)
        methods.make(context.config, context.problem)
