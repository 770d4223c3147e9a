"""Trains fresh nets on a small set by its recipe and tests them: the published protocol.

SGD(0.9), weight decay 5e-4, batches of 256, 1001 passes with the rate divided by 10 and the
momentum zeroed after pass index 501, DSA with parameters of each image's own; the last net counts,
not the best. All seeds of a net train in one vmapped program, split over the devices.

Source: DC (Zhao et al., ICLR 2021), section 4, as kept by DSA, DM and MTT.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel, rng
from jdd.distilled import DistilledSet
from jdd.errors import BadInput
from jdd.evaluation.accuracy import accuracy
from jdd.inner import fit
from jdd.nets import Net
from jdd.session import Session

Tree = Any


def plan(dset: DistilledSet) -> tuple[fit.Recipe, int, float]:
    """Return a set's training recipe, its passes and its learning rate.

    Raises:
      BadInput: the recipe names an optimiser or a loss that is not known, or holds no rate.
    """
    train, augment = dset.recipe["train"], dset.recipe["augment"]
    if train["optimizer"] != "sgd":
        raise BadInput("the set's recipe", f"optimizer {train['optimizer']!r}", "sgd")
    if train["loss"] not in ("cross_entropy", "squared_error"):
        raise BadInput("the set's recipe", f"loss {train['loss']!r}", "cross_entropy")
    lr = train["lr"] if train["lr"] is not None else dset.lr
    if lr is None or not lr > 0:
        raise BadInput("the set's recipe", f"learning rate {lr}", "give --config.eval.lr=0.01")
    epochs, drop = int(train["epochs"]), train.get("drop")
    if drop and not drop.get("reset_momentum", True):
        raise BadInput("the set's recipe", "drop without reset_momentum", "reset_momentum true")
    recipe = fit.Recipe(
        momentum=float(train["momentum"]),
        weight_decay=float(train["weight_decay"]),
        batch=int(train["batch"]),
        drop_epoch=int(drop["after_epoch"]) + 1 if drop else -1,
        drop_factor=float(drop["factor"]) if drop else 1.0,
        strategy=augment["strategy"] if augment["name"] == "dsa" else "",
        align_corners=bool(augment["align_corners"]),
        loss=train["loss"],
        label_kind=dset.label_kind,
        classes=dset.classes,
    )
    return recipe, int(train.get("passes", epochs + 1)), float(lr)


@lru_cache(maxsize=32)
def trainer(run: fit.Fit, devices: tuple[jax.Device, ...]) -> tuple[Any, Any]:
    """Return compiled ``init`` and ``advance`` over nets, one pair a kind of training."""

    def advance(carry: Tree, own: Tree, ops: Tree, *rest: Tree) -> Tree:
        return run.advance(carry, fit.Keys(own, ops), *rest)

    axes = (0, 0, None, 0, 0, None, None, None)
    return parallel.spread(run.init, (0,), devices), parallel.spread(advance, axes, devices)


def test_nets(
    net: Net,
    recipe: fit.Recipe,
    passes: int,
    lr: float,
    images: np.ndarray,
    labels: np.ndarray,
    test: Any,
    seed: int,
    purpose: str,
    session: Session,
    devices: Sequence[jax.Device],
    at_once: int = 0,
) -> np.ndarray:
    """Train one net on each of ``k`` sets and return the test accuracies ``[k]`` (fractions).

    Args:
      images: ``[k, n, h, w, c]``; equal sets are given as a broadcast view.
      labels: ``[k, n]`` or ``[k, n, classes]``.
      test: split the nets are tested on.
      seed, purpose: net i starts and shuffles from the keys of (seed, purpose, i).
      at_once: nets in one program, 0 for all.
    """
    count, n = images.shape[:2]
    size = min(at_once or count, count)
    run = fit.make(net, recipe, n)
    init, advance = trainer(run, tuple(devices))
    found: list[np.ndarray] = []
    for lo in range(0, count, size):
        members = [min(i, count - 1) for i in range(lo, lo + size)]
        keys = [jnp.stack([rng.key(seed, f"{purpose}/{w}", i) for i in members]) for w in "io"]
        x, y = jnp.asarray(images[members]), jnp.asarray(labels[members])
        ops, carry = rng.key(seed, f"{purpose}/ops"), init(keys[0])
        bar = session.bar(passes, f"{purpose}: {net.name} x{min(size, count - lo)}")
        worst = 0.0
        for a, b in session.paced(0, passes * run.steps_per_epoch):
            carry, loss = advance(carry, keys[1], ops, x, y, jnp.float32(lr), a, b)
            worst = float(jnp.max(loss))
            bar.update(b // run.steps_per_epoch, f"loss {worst:.3f}")
        bar.close()
        if not np.isfinite(worst):
            # As published: a net that diverges is one of the n, and says something of the set.
            session.say(f"{purpose}: a {net.name} diverged at rate {lr:.3g}; it counts as it is")
        found.append(accuracy(net, carry["variables"], test, session))
    return np.concatenate(found)[:count]


def repeated(array: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` copies on a new axis 0, as a view."""
    return np.broadcast_to(array, (count, *array.shape))


def summary(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Return mean, population std (None for one value) and n of accuracies, and the values."""
    array = np.asarray(values, np.float64)
    spread = float(array.std()) if len(array) > 1 else None
    return {
        "mean": float(array.mean()),
        "std": spread,
        "n": len(array),
        "values": [float(v) for v in array],
    }
