"""DATM's window, start, gate and average, against small cases written out by hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd.data import Split
from jdd.errors import BadInput
from jdd.methods import datm
from jdd.run import loop
from jdd.run.context import RunContext
from tests import runs

TINY_DATM = {"method": "datm", "experts.epochs": 3, "experts.count": 2}


def window(low, first, high, end):
    names = ("min_start_epoch", "current_max_start_epoch", "max_start_epoch", "expansion_end")
    return SimpleNamespace(**dict(zip(names, (low, first, high, end), strict=True)))


@pytest.mark.parametrize(
    ("low", "first", "high", "end", "table"),
    [
        (0, 10, 20, 1000, {0: 10, 99: 10, 100: 11, 550: 15, 999: 19, 1000: 20, 9999: 20}),
        (0, 30, 50, 2000, {0: 30, 1000: 40, 1999: 49, 2000: 50}),
        (40, 0, 60, 0, {0: 60, 5000: 60}),
    ],
)
def test_window_grows_to_its_end(low, first, high, end, table):
    for step, until in table.items():
        assert datm.start_epochs(window(low, first, high, end), step) == (low, until)


def test_sampled_epochs_stay_in_the_window(tiny):
    keys = {
        "max_start_epoch": 4,
        "experts.epochs": 4,
        "current_max_start_epoch": 2,
        "expansion_end": 10,
    }
    context = tiny_work(tiny, min_start_epoch=1, segments=64, **keys)
    method = datm.make(context.config, context.blank)
    for step, until in ((0, 2), (5, 3), (10, 4)):
        epochs = method.sample(0, step)["snapshots"]["start"][:, 1]
        assert set(epochs) == set(range(1, until))


def tiny_work(tiny, **keys) -> RunContext:
    return runs.context({**tiny, **TINY_DATM, **keys}, Path("nowhere"))


# Six images of two classes; what three experts say of them, as logits [3, 6, 2].
CLASSES = np.array([0, 0, 0, 1, 1, 1])
SAYS = np.array(
    [
        [[2, 0], [0, 1], [0, 3], [0, 2], [5, 0], [1, 0]],
        [[4, 0], [3, 0], [0, 1], [0, 4], [2, 0], [2, 0]],
        [[0, 1], [5, 1], [0, 2], [1, 0], [3, 0], [9, 0]],
    ],
    np.float32,
)


def experts_say(expert, images):
    return SAYS[expert, images.ravel().astype(int)]


def six() -> SimpleNamespace:
    images = np.arange(6.0).reshape(6, 1, 1, 1)
    return SimpleNamespace(train=Split(images, CLASSES), classes=2)


def test_images_are_those_that_experts_have_right():
    for seed in range(5):
        rows, filled = datm.correct_rows(np.random.default_rng(seed), experts_say, six(), 1, 3)
        assert rows.tolist() == [0, 3] and not filled.any()  # expert 0 has only these right
        rows, filled = datm.correct_rows(np.random.default_rng(seed), experts_say, six(), 2, 3)
        # Class 0: image 1 comes with expert 1. Class 1: nobody has 4 or 5 right; of these,
        # 4 (10 in all against 12) is less wrong.
        assert rows.tolist() == [0, 1, 3, 4]
        assert filled.tolist() == [0, 1]


def test_labels_are_the_mean_over_the_experts_that_are_right():
    found = datm.mean_logits(experts_say, six().train.images, CLASSES, 3)
    expected = [[3, 0], [4, 0.5], [0, 2], [0, 3], [10 / 3, 0], [4, 0]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


class Blind:
    """Experts that nobody trained, passed off as trained: most images are wrong for all."""

    def __init__(self, store):
        self.read, self.trained = store.read, True


def test_start_is_a_function_of_the_seed_and_says_what_it_lacks(tiny, capsys):
    context = tiny_work(tiny, ipc=15, progress=True)
    problem = context.blank._replace(experts=Blind(context.blank.experts))
    images, labels = datm.first_set(context.config, problem, 0)
    assert images.shape == (45, 8, 8, 3) and labels.shape == (45, 3)
    assert len(np.unique(images.reshape(45, -1), axis=0)) == 45
    assert "taken though wrong" in capsys.readouterr().err
    for a, b in zip((images, labels), datm.first_set(context.config, problem, 0), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(images, datm.first_set(context.config, problem, 1)[0])
    with pytest.raises(BadInput, match="config.ipc"):
        datm.first_set(tiny_work(tiny, ipc=21).config, problem, 0)


def test_real_start_takes_one_experts_logits(tiny):
    context = tiny_work(tiny, pix_init="real")
    images, labels = datm.first_set(context.config, context.blank, 0)
    said = context.net.apply(
        context.blank.experts.read(0, 3), jnp.asarray(images), train=False
    ).logits
    np.testing.assert_allclose(labels, said, rtol=1e-5, atol=1e-6)


def test_gated_step_changes_nothing_but_the_count(tiny):
    context = tiny_work(tiny, threshold=1.0)
    method = datm.make(context.config, context.blank)
    _, update = loop.make_step(method, 0, jax.devices()[:1])
    carry = loop.start(method, 0)
    ones, metrics = jax.tree.map(jnp.ones_like, carry.state.variables), {}
    carry, told = update(
        carry, ((jnp.float32(0.9), (carry.state.aux, metrics)), ones), jnp.asarray(True)
    )
    small = jax.tree.map(lambda x: 1e-5 * x, ones)
    after, told = update(carry, ((jnp.float32(1.1), (carry.state.aux, metrics)), small), told["ok"])
    assert int(after.step) == 2 and bool(told["ok"])
    jax.tree.map(np.testing.assert_array_equal, after._replace(step=carry.step), carry)
    assert any(np.any(x) for x in jax.tree.leaves(after.optimizer))  # a momentum there is
    moved, _ = update(carry, ((jnp.float32(1.0), (carry.state.aux, metrics)), small), told["ok"])
    assert not np.array_equal(moved.state.variables["labels"], carry.state.variables["labels"])


def test_the_set_has_logits_and_the_published_evaluation(tiny):
    context = tiny_work(tiny)
    dset = datm.make(context.config, context.blank).distilled(
        datm.make(context.config, context.blank).init(0), 0
    )
    assert dset.label_kind == "logits" and dset.labels.shape == (3, 3)
    assert dset.recipe["train"]["batch"] == 128
    assert dset.recipe["train"]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"min_start_epoch": 2}, "config.min_start_epoch.*0 to 1"),
        ({"current_max_start_epoch": 3, "expansion_end": 9}, "config.current_max_start_epoch"),
        ({"current_max_start_epoch": 1}, "config.expansion_end.*1 or more"),
        ({"pix_init": "noise"}, "config.pix_init.*correct, real"),
        ({"experts.epochs": 1}, "config.experts.epochs.*2 or more"),
        ({"experts.sam_rho": -1}, "config.experts.sam_rho.*0 or more"),
    ],
)
def test_bad_values_are_named(tiny, keys, says):
    with pytest.raises(BadInput, match=says):
        tiny_work(tiny, **keys)
