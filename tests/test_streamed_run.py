"""Trainings whose images stay on disk: the nets that the same images in memory give."""

from __future__ import annotations

import time

import jax
import numpy as np
import pytest

from jdd.data import Streamed
from jdd.data.prefetch import Prefetcher
from jdd.errors import Interrupted
from jdd.pretrained import feature_statistics
from jdd.run import metrics
from jdd.training import input_pipeline, orders, trainer
from jdd.training.recipe import Recipe
from tests import runs
from tests.test_decoupled import keys_of

STREAM = {"data.stream": True}
# 60 images: three batches of 16 and one of 12.
OWN = {
    "squeeze.epochs": 3, "squeeze.batch": 16, "squeeze.augment": "pad_flip",
}  # fmt: skip


def teacher(keys, place):
    runs.run(keys, place, "squeeze")
    context = runs.context(keys, place)
    return context, context.teachers[0].variables()


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), a, b)


@pytest.fixture(scope="module")
def held(tiny, tmp_path_factory):
    keys = keys_of(tiny, "sre2l", **OWN)
    place = tmp_path_factory.mktemp("held")
    runs.run(keys, place, "squeeze")
    return keys, place


@pytest.mark.slow
def test_a_streamed_teacher_is_the_teacher_in_memory(held, tmp_path, monkeypatch):
    keys, place = held
    most, plain = [0], Streamed._read
    monkeypatch.setattr(input_pipeline, "STEPS", 2)

    def counted(self, rows):
        if self._transform is not None:  # digest and statistics are read in larger pieces
            most[0] = max(most[0], len(rows))
            time.sleep(0.05)  # the first batch is waited for, however busy the machine is
        return plain(self, rows)

    monkeypatch.setattr(Streamed, "_read", counted)
    runs.run({**keys, **STREAM}, tmp_path, "squeeze")
    assert most[0] <= 30  # the test images, of which accuracy asks 200 at a time
    a, b = (runs.context({**keys, **more}, p) for more, p in (({}, place), (STREAM, tmp_path)))
    assert a.data.fingerprint == b.data.fingerprint
    assert isinstance(b.data.train.images, Streamed)
    close(a.teachers[0].variables(), b.teachers[0].variables())
    rows = metrics.read(tmp_path / "metrics.jsonl")
    stalls = [row["stall"] for row in rows if row["stage"] == "squeeze-ConvNetBN"]
    assert len(stalls) == 3 and all(0 < stall < 1 for stall in stalls)
    # The key may change when a run is started again, and nothing is made anew.
    runs.run({**keys, "data.stream": False}, tmp_path, "squeeze")
    assert metrics.read(tmp_path / "metrics.jsonl") == rows


@pytest.mark.slow
def test_a_streamed_teacher_goes_on_to_the_same_bits(held, tmp_path, monkeypatch):
    keys = {**held[0], **STREAM}
    context, whole = teacher(keys, tmp_path / "whole")
    runs.interrupt_after_epoch(monkeypatch, 2)
    with pytest.raises(Interrupted):
        runs.run(keys, tmp_path / "again", "squeeze")
    monkeypatch.undo()
    _, again = teacher(keys, tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, whole, again)
    # What a teacher's convolutions see is read in batches, too.
    one = context.teachers[0]
    other = runs.context(held[0], tmp_path / "whole").data
    ours = feature_statistics._measured(one, one.variables(), context.data, 2)
    close(ours, feature_statistics._measured(one, one.variables(), other, 2))


@pytest.mark.slow
def test_streamed_experts_of_two_groups_on_two_devices(tiny, tmp_path):
    keys = {**tiny, "method": "mtt", "experts.count": 4, "max_start_epoch": 1, "devices": 2}
    places = []
    for more in ({}, STREAM):
        place = tmp_path / f"stream{bool(more)}"
        runs.run({**keys, **more}, place, "experts")
        places.append(runs.context({**keys, **more}, place).store)
    for expert in range(4):
        epoch = places[0].epochs(expert // 2)
        close(places[0].read(expert, epoch), places[1].read(expert, epoch))


def test_pieces_are_the_batches_of_the_whole(tiny, tmp_path):
    context = runs.context({**keys_of(tiny, "sre2l", **OWN), **STREAM}, tmp_path)
    split, recipe = context.data.train, Recipe(batch=16, classes=3)
    own = jax.vmap(jax.random.key)(np.arange(2))
    source = input_pipeline.Feed(split, recipe, own, range(1, 3), jax.devices()[:1])
    for epoch in (1, 2):
        pieces = list(source.epoch(epoch))
        assert [(lo, hi) for lo, hi, *_ in pieces] == [(4 * epoch, 4 * epoch + 3)] + [
            (4 * epoch + 3, 4 * epoch + 4)
        ]
        for member in range(2):
            order = np.asarray(orders.shuffle(orders.Keys(own[member], own[member]), epoch, 60))
            flat = [np.asarray(x[member, : hi - lo]) for lo, hi, x, _ in pieces]
            seen = np.concatenate([x.reshape(-1, *split.images.shape[1:]) for x in flat])
            np.testing.assert_array_equal(seen, split.images[order])
            labels = np.concatenate([np.asarray(y[member]).ravel() for *_, y in pieces])
            np.testing.assert_array_equal(labels, split.labels[order])
    source.close()
    with pytest.raises(ValueError, match="shuffled"):
        trainer.make(context.net, recipe.replace(order="sequential"), 60, fed=True)


def test_reading_ahead_keeps_order_counts_waits_and_passes_errors_on():
    import threading
    import time

    busy = threading.Event()

    def read(i):
        time.sleep(0.05 if i < 3 else 0)
        if i == 7:
            busy.set()
            raise OSError("cut")
        return i * i

    ahead, found = Prefetcher(read, range(9)), []
    with pytest.raises(OSError, match="cut"):
        for piece, value in ahead:
            assert value == piece * piece
            found.append(piece)
    assert found == list(range(7)) and busy.is_set() and 0.1 < ahead.waited < 2
    slow = Prefetcher(lambda i: time.sleep(0.02), range(4))
    for _ in slow:
        time.sleep(0.1)  # longer than a read: only the first one is waited for
    assert slow.waited < 0.08
