"""Nets that measure the sets of all methods alike: trained once a dataset, in the cache folder.

Their recipe does not depend on the method. A store is named by the hash of its settings.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jdd import nets
from jdd.data import Dataset, cache
from jdd.evaluation.accuracy import accuracy
from jdd.nets import Net
from jdd.pretrained import store as stores
from jdd.pretrained import train
from jdd.pretrained.store import Store
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, locked
from jdd.schema.experts import Experts
from jdd.stages.base import Estimate
from jdd.stages.experts import training_cost
from jdd.training.recipe import Recipe
from jdd.training.schedules import Cosine

Tree = Any


class CachedNet(NamedTuple):
    """A net, its training and its store. The rate falls from ``rate`` to 0 by a cosine."""

    net: Net
    recipe: Recipe
    store: Store
    epochs: int
    rate: float

    @property
    def trained(self) -> bool:
        """True if all its epochs are in the cache."""
        return self.store.epochs(0) >= self.epochs

    def facts(self, accuracy: float) -> dict[str, Any]:
        """Return what names it in results: net, width, epochs, test accuracy and digest."""
        return {
            "net": self.net.name,
            "width": self.store.settings["net_options"].get("width"),
            "epochs": self.epochs,
            "accuracy": accuracy,
            "digest": self.store.digest(0, self.epochs),
        }

    def estimate(self, data: Dataset, devices: Sequence[jax.Device], what: str) -> Estimate:
        """Return the cost of training it; none if it is in the cache."""
        if self.trained:
            return Estimate(0.0, 0, f"{what} is in the cache")
        cost = training_cost(self.net, self.recipe, data, 1, self.epochs, 1, devices)
        return cost._replace(note=f"{what}: {cost.note}")


def of(
    context: RunContext,
    data: Dataset,
    folder: str,
    name: str,
    options: Mapping[str, Any],
    recipe: Recipe,
    epochs: int,
    rate: float,
    **more: Any,
) -> CachedNet:
    """Return a net of the cache, trained or not.

    Args:
      data: the dataset that it is trained on.
      folder: the folder of its kind in the cache.
      name, options: the net.
      recipe: SGD with momentum.
      more: further settings, in its identity.

    Raises:
      BadInput: the net cannot be built for these images.
    """
    shape = (int(data.shape[0]), int(data.shape[1]), int(data.shape[2]))
    net = built(name, shape, data.classes, tuple(options.items()))
    keys = Experts(
        lr=rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
        batch=recipe.batch, epochs=epochs,
    )  # fmt: skip
    settings = stores.settings(
        data, name, options, keys, 1, **more, schedule="cosine", epochs=epochs
    )
    place = cache.folder(context.config.data.cache_dir) / folder / fingerprint(settings)
    like = jax.eval_shape(net.init, jax.random.key(0))
    verify = context.config.verify_files
    store = Store(place, settings, like, key="data.cache_dir", verify=verify)
    return CachedNet(net, recipe, store, epochs, rate)


def trained(
    context: RunContext, data: Dataset, found: CachedNet, session: Session, line: str
) -> tuple[Tree, float]:
    """Return a net's variables, stacked on axis 0, and its test accuracy; trained now if need be.

    Args:
      line: the name of its lines in the metrics, and of the remembered accuracy.

    Raises:
      Interrupted: a signal arrived; complete epochs are stored.
    """
    store, key = found.store, found.store.directory.name
    known = context.recall(line).get(key)
    with locked(store.directory, session):
        if damaged := store.mend(0):
            session.warn(damaged)
        missing = not found.trained
        if missing:
            steps = found.recipe.steps_per_epoch(data.train.size)
            rates = Cosine().rates(found.rate, found.epochs * steps, steps)
            train.train(
                store, found.net, found.recipe, rates, data, 1, found.epochs, 0, session,
                context.devices, stage=line, keep_all=False, named="",
            )  # fmt: skip
            session.metrics.stop(line)
        variables = store.read_group(0, found.epochs)
        if known is None or missing:
            known = float(accuracy(found.net, variables, data.test, session)[0])
            context.remember(line, key, known)
    return variables, float(known)


@functools.lru_cache(maxsize=8)
def built(name: str, shape: tuple[int, int, int], classes: int, options: tuple[Any, ...]) -> Net:
    """Return a net; one object per net, since it is the key of compiled programs."""
    return nets.make(name, shape, classes, **dict(options))
