"""The classifier whose features generated images are compared in: trained once a dataset.

A net with batch norm (instance norm would hide brightness and contrast), by SGD with momentum 0.9,
weight decay 5e-4, batches of 64 and a rate that falls from 0.01 by a cosine, without augmentation.
Its recipe does not depend on the method, so that the figures of several methods are in one space.
It is stored in the cache folder, ``classifiers/<hash of its settings>``, and shared by all runs.
"""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd import nets, rng
from jdd.data import cache
from jdd.errors import BadInput
from jdd.evaluation.accuracy import accuracy
from jdd.evaluation.predict import Outputs, outputs
from jdd.generative.quality import figures as figures_of
from jdd.nets import Net
from jdd.pretrained import store as stores
from jdd.pretrained import train
from jdd.pretrained.store import Store
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, locked
from jdd.schema.common import Experts
from jdd.schema.quality import Quality
from jdd.stages.base import Estimate, timed
from jdd.stages.experts import training_cost
from jdd.training.recipe import Recipe
from jdd.training.schedules import Cosine

LINE = "quality-classifier"  # the name of its lines in the metrics
_BATCH, _RATE = 64, 0.01
_MOST = 1000  # rows whose figures are timed in full


class Classifier(NamedTuple):
    """A trained classifier. ``facts`` name it in results: net, width, epochs, accuracy, digest."""

    net: Net
    variables: Any
    facts: dict[str, Any]

    def outputs(self, images: np.ndarray, session: Session | None = None) -> Outputs:
        """Return logits and features of images ``[n, h, w, c]`` in the data's input space."""
        return outputs(self.net, self.variables, images, session)


class Real(NamedTuple):
    """Real images that generated ones are compared with: their rows, classes and features."""

    rows: np.ndarray
    labels: np.ndarray
    features: np.ndarray


def real(
    context: RunContext, net: Classifier, n: int, session: Session, test: bool = False
) -> Real:
    """Return features of ``n`` real images, all if there are fewer: the same for every run."""
    split = context.data.test if test else context.data.train
    draw = rng.host(0, "quality/test" if test else "quality/train")
    rows = np.sort(draw.choice(split.size, min(n, split.size), replace=False))
    return Real(rows, split.labels[rows], net.outputs(split.images[rows], session).features)


def measured(
    net: Classifier, to: Real, images: np.ndarray, labels: np.ndarray, k: int, session: Session
) -> dict[str, float]:
    """Return the figures of images ``[n, h, w, c]`` of these classes, in the data's input space.

    ``agreement``: the share that the classifier takes for its class.
    """
    found = net.outputs(images, session)
    hits = found.logits.argmax(axis=1) == labels
    figures = figures_of(to.features, found.features, k)
    return {**figures._asdict(), "agreement": float(hits.mean())}


def keys(context: RunContext) -> Quality | None:
    """Return the group ``quality`` of the run's config; None if its method has none."""
    found: Quality | None = getattr(context.config, "quality", None)
    return found


def trained(context: RunContext, session: Session) -> Classifier:
    """Return the classifier, trained now if it is not in the cache.

    Raises:
      BadInput: ``quality.net`` cannot be built for these images.
      Interrupted: a signal arrived; complete epochs are stored.
    """
    net, recipe, store, epochs = _made(context)
    known = context.recall("quality-classifier").get(store.directory.name)
    with locked(store.directory, session):
        missing = store.epochs(0) < epochs
        if missing:
            steps = recipe.steps_per_epoch(context.data.train.size)
            rates = Cosine().rates(_RATE, epochs * steps, steps)
            train.train(
                store, net, recipe, rates, context.data, 1, epochs, 0, session,
                context.devices, stage=LINE, keep_all=False, named="",
            )  # fmt: skip
            session.metrics.stop(LINE)
        variables = store.read_group(0, epochs)
        if known is None or missing:
            known = float(accuracy(net, variables, context.data.test, session)[0])
            context.remember("quality-classifier", store.directory.name, known)
    facts = {
        "net": net.name,
        "width": store.settings["net_options"].get("width"),
        "epochs": epochs,
        "accuracy": known,
        "digest": store.digest(0, epochs),
    }
    return Classifier(net, jax.tree.map(lambda a: np.asarray(a)[0], variables), facts)


def validate(context: RunContext) -> None:
    """Refuse, before anything is written, a classifier that cannot be, or too few images.

    Raises:
      BadInput: naming the key.
    """
    _made(context)
    found = keys(context)
    assert found is not None
    few = min(found.images, context.data.train.size, context.data.test.size)
    if found.every and found.curve == 1:
        raise BadInput("config.quality.curve", "1", "0 (no curve), or 2 and more images")
    if found.images and few <= found.k:
        words = f"{found.k}, and {few} images are compared"
        raise BadInput("config.quality.k", words, f"a number below {few}, or more quality.images")


def curved(context: RunContext) -> bool:
    """Return whether a prior's curve needs the classifier while it trains."""
    found = keys(context)
    return found is not None and bool(found.every and found.curve)


def estimate(context: RunContext) -> Estimate:
    """Return the cost of training it; none if it is in the cache."""
    net, recipe, store, epochs = _made(context)
    if store.epochs(0) >= epochs:
        return Estimate(0.0, 0, "the classifier is in the cache")
    cost = training_cost(net, recipe, context.data, 1, epochs, 1, context.devices)
    return cost._replace(note=f"the classifier: {cost.note}")


def seconds(context: RunContext, images: np.ndarray, n: int) -> float:
    """Return how long the figures of ``n`` images take, timed on a few by an untrained net."""
    net, found = _made(context)[0], keys(context)
    assert found is not None
    own = Classifier(net, net.init(rng.key(0, "estimate")), {})
    shown = np.nan_to_num(images)
    passed = timed(lambda: own.outputs(shown).features, 1) * n / len(images)
    draw, few = rng.host(0, "estimate/features"), min(n, _MOST)
    rows = [draw.standard_normal((few, own.outputs(shown).features.shape[1])) for _ in range(2)]
    if few <= found.k:
        return passed
    begun = time.perf_counter()
    figures_of(rows[0], rows[1], found.k)
    return passed + (time.perf_counter() - begun) * (n / few) ** 2  # distances of all pairs


def identity(context: RunContext) -> str:
    """Return the hash of every setting that changes the classifier."""
    return _made(context)[2].directory.name


def _made(context: RunContext) -> tuple[Net, Recipe, Store, int]:
    """Return its net, recipe, store and number of epochs."""
    found, data = keys(context), context.data
    assert found is not None
    wide = found.net in nets.NAMES and "width" in nets.options_of(found.net)
    options = {"width": found.width} if wide else {}
    try:
        net = _net(found.net, data.shape, data.classes, tuple(options.items()))
    except BadInput as error:
        raise BadInput("config.quality.net", error.found, error.allowed) from error
    own = Experts(lr=_RATE, momentum=0.9, weight_decay=5e-4, batch=_BATCH, epochs=found.epochs)
    recipe = Recipe(
        batch=_BATCH, momentum=own.momentum, weight_decay=own.weight_decay, classes=data.classes
    )
    settings = stores.settings(
        data, found.net, options, own, 1, schedule="cosine", epochs=found.epochs
    )
    folder = cache.folder(context.config.data.cache_dir) / "classifiers" / fingerprint(settings)
    return net, recipe, _store(folder, net, settings), found.epochs


def _store(folder: Path, net: Net, settings: dict[str, Any]) -> Store:
    like = jax.eval_shape(net.init, jax.random.key(0))
    return Store(folder, settings, like, key="data.cache_dir")


@functools.lru_cache(maxsize=8)
def _net(name: str, shape: tuple[int, int, int], classes: int, options: tuple[Any, ...]) -> Net:
    # One object per net: it is the key of compiled programs.
    return nets.make(name, shape, classes, **dict(options))
