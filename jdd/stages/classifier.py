"""The classifier whose features generated images are compared in: trained once a dataset.

A net with batch norm (instance norm would hide brightness and contrast), by SGD with momentum 0.9,
weight decay 5e-4, batches of 64 and a rate that falls from 0.01 by a cosine, without augmentation.
Its recipe does not depend on the method, so that the figures of several methods are in one space.
It is stored in the cache folder, ``classifiers/<hash of its settings>``, and shared by all runs.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd import nets, rng
from jdd.errors import BadInput
from jdd.evaluation.predict import Outputs, outputs
from jdd.generative.quality import figures as figures_of
from jdd.nets import Net
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.schema.quality import Quality
from jdd.stages import cached_net
from jdd.stages.base import Estimate, timed
from jdd.stages.cached_net import CachedNet
from jdd.training.recipe import Recipe

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
    found = _made(context)
    variables, known = cached_net.trained(context, context.data, found, session, LINE)
    return Classifier(
        found.net, jax.tree.map(lambda a: np.asarray(a)[0], variables), found.facts(known)
    )


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
    return _made(context).estimate(context.data, context.devices, "the classifier")


def seconds(context: RunContext, images: np.ndarray, n: int) -> float:
    """Return how long the figures of ``n`` images take, timed on a few by an untrained net."""
    net, found = _made(context).net, keys(context)
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
    return _made(context).store.directory.name


def _made(context: RunContext) -> CachedNet:
    """Return it, trained or not."""
    found, data = keys(context), context.data
    assert found is not None
    wide = found.net in nets.NAMES and "width" in nets.options_of(found.net)
    options = {"width": found.width} if wide else {}
    recipe = Recipe(batch=_BATCH, momentum=0.9, weight_decay=5e-4, classes=data.classes)
    try:
        return cached_net.of(
            context, data, "classifiers", found.net, options, recipe, found.epochs, _RATE
        )
    except BadInput as error:
        raise BadInput("config.quality.net", error.found, error.allowed) from error
