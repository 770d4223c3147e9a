"""Balanced epochs: as many images of each class, in memory, streamed, resumed and over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import data, nets
from jdd.errors import BadInput, Interrupted
from jdd.evaluation.predict import outputs
from jdd.pretrained import train
from jdd.pretrained.store import Store
from jdd.run.session import Session
from jdd.training import input_pipeline, orders, trainer
from jdd.training.recipe import Recipe
from tests import runs
from tests.tiny_classes import write

COUNTS = (1, 2, 60)
LABELS = np.repeat(np.arange(3), COUNTS)[np.random.default_rng(0).permutation(63)].astype(np.int32)
RECIPE = Recipe(momentum=0.9, batch=16, classes=3, balanced=True)


def keys_of(seed: int) -> orders.Keys:
    return orders.Keys(jax.random.key(seed), jax.random.key(9))


def test_an_epoch_has_as_many_images_of_each_class():
    draw = jax.jit(lambda seed, epoch: orders.balanced(keys_of(seed), epoch, LABELS, 3))
    for epoch in range(3):
        rows = np.asarray(draw(0, epoch))
        assert np.bincount(LABELS[rows], minlength=3).tolist() == [21, 21, 21]
        for c, size in enumerate(COUNTS):  # one image 21 times, two 10 and 11 times, 21 of 60 once
            times = np.bincount(rows, minlength=63)[LABELS == c]
            assert times.max() - times.min() <= 1 and times.sum() == 21
            assert (times > 0).sum() == min(size, 21)
    assert np.array_equal(draw(0, 2), rows)
    others = [draw(0, 1), draw(1, 2)]
    assert not any(np.array_equal(other, rows) for other in others)
    assert (np.diff(LABELS[rows]) != 0).sum() > 20  # classes are mixed within the epoch


def test_classes_that_do_not_divide_the_images_and_empty_ones():
    labels = np.array([0, 0, 0, 0, 3, 3, 1, 0], np.int32)  # none of class 2, 8 images of three
    seen = set()
    draw = jax.jit(lambda epoch: orders.balanced(keys_of(0), epoch, labels, 4))
    for epoch in range(12):
        rows = np.asarray(draw(epoch))
        counts = np.bincount(labels[rows], minlength=4)
        assert counts[2] == 0 and sorted(counts[[0, 1, 3]]) == [2, 3, 3]
        seen.add(tuple(counts))
    assert len(seen) == 3  # the class with fewer is another one in other epochs


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("small") / "small.npz", COUNTS)
    return {"name": "toy", "path": str(path)}


def trained(place, loaded, recipe=RECIPE, epochs=3, devices=1, group=1, lr=0.05):
    net = nets.make("MLP", loaded.shape, 3)
    like = jax.eval_shape(net.init, jax.random.key(0))
    store = Store(place / "store", {"group": group}, like)
    place.mkdir(exist_ok=True)
    session, own = Session(place, False, False), jax.devices()[:devices]
    with session.signals():
        train.train(store, net, recipe, lr, loaded, 1, epochs, 0, session, own, named="")
    return net, store.read_group(0, epochs)


@pytest.mark.parametrize("batch", [16, 100])  # four steps with a short last batch; one step
def test_steps_take_the_rows_of_the_draw(small, batch):
    loaded = data.load(small)
    net = nets.make("MLP", loaded.shape, 3)
    recipe = RECIPE.replace(batch=batch, momentum=0.0, weight_decay=0.0)
    run = trainer.make(net, recipe, 63)
    images, labels = jnp.asarray(loaded.train.images), jnp.asarray(loaded.train.labels)
    carry = run.init(jax.random.key(0))
    params = carry["variables"]["params"]
    per_epoch = run.steps_per_epoch
    carry, _ = jax.jit(run.advance)(
        carry, keys_of(0), images, labels, jnp.float32(0.1), 0, 2 * per_epoch
    )

    @jax.jit
    def step(params, x, y):
        def loss(p):
            logits = net.apply({"params": p}, x, train=True).logits
            return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

        return jax.tree.map(lambda w, g: w - 0.1 * g, params, jax.grad(loss)(params))

    for epoch in range(2):
        rows = orders.balanced(keys_of(0), epoch, labels, 3)
        for lo in range(0, 63, batch):
            own = rows[lo : lo + batch]
            params = step(params, images[own], labels[own])
    found = carry["variables"]["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), found, params)


def test_streamed_batches_are_those_in_memory_from_any_epoch(small):
    split = data.load(small).train
    own = jax.random.split(jax.random.key(1), 2)

    def fed(first):
        feed = input_pipeline.Feed(split, RECIPE, own, range(first, 3), jax.devices()[:1])
        found = []
        for epoch in range(first, 3):
            for lo, hi, images, labels in feed.epoch(epoch):
                found.append((np.asarray(images)[:, : hi - lo], np.asarray(labels)[:, : hi - lo]))
        feed.close()
        return found[-2:]  # the last epoch: its whole batches and the short one

    for (x, y), (again, same) in zip(fed(0), fed(2), strict=True):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, same)
    labels = np.concatenate([y.reshape(2, -1) for _, y in fed(2)], axis=1)
    for member in range(2):
        rows = orders.balanced(orders.Keys(own[member], own[member]), 2, split.labels, 3)
        np.testing.assert_array_equal(labels[member], split.labels[np.asarray(rows)])


def test_a_balanced_net_knows_small_classes_resumes_and_spreads(small, tmp_path, monkeypatch):
    loaded = data.load(small)
    net, whole = trained(tmp_path / "whole", loaded)
    _, plain = trained(tmp_path / "plain", loaded, RECIPE.replace(balanced=False))
    rows = np.flatnonzero(loaded.test.labels < 2)

    def right(stacked):
        own = jax.tree.map(lambda a: a[0], stacked)
        guess = outputs(net, own, loaded.test.images[rows]).logits.argmax(1)
        return float((guess == loaded.test.labels[rows]).mean())

    assert right(whole) > right(plain) + 0.2
    runs.interrupt_after_epoch(monkeypatch, 2)
    with pytest.raises(Interrupted):
        trained(tmp_path / "again", loaded)
    monkeypatch.undo()
    _, again = trained(tmp_path / "again", loaded)
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    close = lambda a, b: np.testing.assert_allclose(a, b, 1e-3, 1e-4)  # noqa: E731
    _, two = trained(tmp_path / "two", loaded, devices=2)
    jax.tree.map(close, whole, two)
    _, streamed = trained(tmp_path / "streamed", data.load({**small, "stream": True}))
    jax.tree.map(close, whole, streamed)


def test_stores_name_it_only_where_it_is_used(tiny, tmp_path):
    plain = runs.context(tiny, tmp_path / "plain")
    own = runs.context({**tiny, "experts.balanced": True}, tmp_path / "own")
    settings = own.settings(2)
    assert "balanced" not in plain.settings(2) and settings.pop("balanced") is True
    assert settings == plain.settings(2)
    assert not own.recipe(flat=False).balanced and own.recipe().balanced  # of the whole set: plain
    assert "balanced" not in own.settings(2, flat=False)
    plain.store.create()
    shared = {"experts.balanced": True, "experts.dir": str(tmp_path / "plain" / "experts")}
    with pytest.raises(BadInput, match="balanced"):
        runs.context({**tiny, **shared}, tmp_path / "third")
