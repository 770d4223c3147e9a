"""Teachers whose batches several devices share, or that are cut into parts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import nets, parallel, rng
from jdd.errors import BadInput
from jdd.matching import losses
from jdd.pretrained import train
from jdd.soft_labels import teacher
from jdd.training import orders, trainer
from jdd.training.recipe import Recipe
from tests import runs
from tests.test_decoupled import keys_of

# 60 images: three batches of 16 and one of 12.
OWN = {"squeeze.epochs": 3, "squeeze.batch": 16, "squeeze.augment": "pad_flip"}


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-4, atol=2e-5), a, b)


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_devices_share_the_batches_of_one_teacher(tiny, tmp_path, stream):
    found = []
    for devices in (1, 3):
        keys = keys_of(tiny, "sre2l", **OWN, **{"devices": devices, "data.stream": stream})
        place = tmp_path / str(devices)
        runs.run(keys, place, "squeeze")
        found.append(runs.context(keys, place).teachers[0].variables())
    close(*found)
    fresh = runs.context(keys, tmp_path / "fresh").teachers[0].net.init(rng.key(0, "fresh"))
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), fresh, found[0])
    assert max(jax.tree.leaves(moved)) > 1e-2


def small(parts=1, over=(), count=12):
    """Return a net, images, their labels and a training of it in one batch an epoch."""
    net = nets.make("ConvNetBN", (8, 8, 1), 3, width=4, depth=1)
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.normal(size=(count, 8, 8, 1)), jnp.float32)
    labels = jnp.asarray(draw.integers(0, 3, count), jnp.int32)
    recipe = Recipe(
        momentum=0.9, weight_decay=0.0, batch=count, augment="views", classes=3, parts=parts
    )
    return net, images, labels, trainer.make(net, recipe, count, over=over)


@pytest.mark.parametrize("devices", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_devices_share_a_batch_and_its_statistics(devices):
    """They need not divide it."""
    found = []
    for over in ((), tuple(jax.devices()[:devices])):
        _, images, labels, run = small(over=over, count=10)
        carry = jax.tree.map(lambda x: x[None], run.init(rng.key(0, "net")))
        call = train.advance(run, over or (jax.devices()[0],), shared=bool(over))
        own, ops = (rng.key(0, word)[None] for word in ("own", "ops"))
        after, loss = call(carry, own, ops, images, labels, np.float32(0.1), 0, 3)
        found.append(jax.device_get((after["variables"], after["optimizer"], loss)))
    close(*found)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), carry["variables"], found[0][0])
    assert max(jax.tree.leaves(moved)) > 1e-2  # a bias before a batch norm need not move


@pytest.mark.parametrize("bn", ["eval", "batch"])
def test_devices_share_the_views_that_are_labelled(bn):
    net, images, *_ = small()
    variables = [net.init(rng.key(0, "net"))]
    over = tuple(jax.devices()[:3])
    alone = teacher.compiled_answer((net,), bn)(variables, images[:7])
    said = teacher.compiled_answer((net,), bn, over=over)(
        parallel.everywhere(variables, over), images[:7]
    )
    close(said, alone)


@pytest.mark.parametrize(
    ("count", "parts", "cuts"),
    [pytest.param(12, 3, (0, 4, 8, 12), marks=pytest.mark.slow), (7, 3, (0, 2, 4, 6, 7))],
)
def test_parts_of_a_batch_are_averaged(count, parts, cuts):
    """By their sizes, where the last one is smaller; running statistics move with each."""
    net, images, labels, run = small(parts=parts, count=count)
    carry = run.init(rng.key(0, "net"))
    keys = orders.Keys(rng.key(0, "own"), rng.key(0, "ops"))
    after, loss = run.advance(carry, keys, images, labels, 0.1, 0, 1)

    def part(params, stats, lo, hi):
        out = net.apply({"params": params, "batch_stats": stats}, images[lo:hi], train=True)
        return losses.cross_entropy(out.logits, jax.nn.one_hot(labels[lo:hi], 3)), out.stats

    params, stats, each = *(carry["variables"][k] for k in ("params", "batch_stats")), []
    pairs = list(zip(cuts, cuts[1:], strict=False))
    for lo, hi in pairs:
        (value, stats), slope = jax.value_and_grad(part, has_aux=True)(params, stats, lo, hi)
        each.append((value, slope))
    shares = [(hi - lo) / count for lo, hi in pairs]
    wanted, grads = jax.tree.map(
        lambda *own: sum(w * a for w, a in zip(shares, own, strict=True)), *each
    )
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    close(after["variables"]["batch_stats"], stats)
    close(after["variables"]["params"], jax.tree.map(lambda w, g: w - 0.1 * g, params, grads))


def test_parts_that_do_not_divide_a_batch_are_refused(tiny, tmp_path):
    for accumulate in (3, 16):
        keys = keys_of(tiny, "sre2l", **{"squeeze.batch": 16, "squeeze.accumulate": accumulate})
        with pytest.raises(BadInput, match="equal parts of two images or more"):
            runs.context(keys, tmp_path)


def test_rates_of_sgd_are_refused_for_adam(tiny, tmp_path):
    keys = keys_of(tiny, "sre2l", **{"squeeze.lr": 0.1, "squeeze.optimizer": "adam"})
    with pytest.raises(BadInput, match="config.squeeze.lr: 0.1 with config.squeeze.optimizer=adam"):
        runs.context(keys, tmp_path)
