"""Figures by which ``report/diagnosis.py`` finds what limits a result, measured with the data.

They are stored in result.json as ``limits``. Nothing is trained and nothing random is drawn: class
sizes are counted, trained nets of the run are tested where their accuracy is unknown, and where the
run mirrors images, real ones are compared with their mirror images.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jdd.config.files import stage_names
from jdd.data import Dataset, class_indices
from jdd.data.pairs import PairDataset
from jdd.evaluation.accuracy import accuracy
from jdd.evaluation.predict import outputs
from jdd.report.diagnosis import IMBALANCE, mirroring
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.schema.values import flat
from jdd.stages import full

Tree = Any
KNOWN, ASKED = 1000, 500  # real images that are compared: of the training and of the test split
SIDE = 16  # their largest side in pixels: larger images are averaged


def measured(context: RunContext, session: Session) -> dict[str, Any]:
    """Return the figures of a run with images of classes; {} for pairs.

    ``images``, ``chance`` (the accuracy of always answering the most common test class),
    ``classes`` (smallest and largest, by name), and where they apply ``experts``, ``small_classes``
    and ``mirrored``.
    """
    if isinstance(context.data, PairDataset):
        return {}
    data: Dataset = context.data
    train = np.bincount(data.train.labels, minlength=data.classes)
    test = np.bincount(data.test.labels, minlength=data.classes)
    few, many = int(train.argmin()), int(train.argmax())
    found: dict[str, Any] = {
        "images": int(train.sum()),
        "chance": float(test.max() / test.sum()),
        "classes": {
            "smallest": {"name": data.class_names[few], "images": int(train[few])},
            "largest": {"name": data.class_names[many], "images": int(train[many])},
        },
    }
    if (experts := _experts(context, session)) is not None:
        found["experts"] = experts
    small = train * IMBALANCE <= train.max()
    if small.any() and (own := _of_small(context, small, session)):
        found["small_classes"] = own
    if keys := mirroring(flat(context.config), data.dsa):
        found["mirrored"] = {"without": keys, **mirrored(data)}
    return found


def _experts(context: RunContext, session: Session) -> float | None:
    """Return the mean test accuracy of a group of experts; the logged one where there is one."""
    if not _has_experts(context):
        return None
    known = (session.metrics.last("experts") or {}).get("accuracy")
    if known is not None:
        return float(known)
    epochs = context.config.experts.epochs
    if not context.store.has(1, epochs):
        return None
    nets = context.store.read_group(0, epochs)
    return float(accuracy(context.net, nets, context.data.test, session).mean())


def _has_experts(context: RunContext) -> bool:
    """Return whether the run trains experts on its own data; of a set made elsewhere it is False.

    The settings of those are unknown.
    """
    trained = "experts" in stage_names(context.config) and context.source is context.data
    return trained and context.set_directory == context.workdir


def _of_small(context: RunContext, small: np.ndarray, session: Session) -> dict[str, Any]:
    """Return the accuracy of a trained net on the test images of the ``small`` classes."""
    test = context.data.test
    rows = np.flatnonzero(small[test.labels])
    trained = _trained(context)
    if trained is None or not len(rows):
        return {}
    what, net, variables = trained
    guess = outputs(net, variables, test.images[rows], session).logits.argmax(1)
    right = float((guess == test.labels[rows]).mean())
    return {"classes": int(small.sum()), "accuracy": right, "of": what}


def _trained(context: RunContext) -> tuple[str, Any, Tree] | None:
    """Return a net trained on the real images, with words for it; None if the run has none."""
    if context.teachers and context.teachers[0].trained:
        return "a teacher", context.teachers[0].net, context.teachers[0].variables()
    epochs = context.config.experts.epochs
    if _has_experts(context) and context.store.has(1, epochs):
        return "an expert", context.net, context.store.read(0, epochs)
    if (variables := full.stored(context)) is not None:
        net = context.make_net(context.baseline_nets[0])
        return "the net trained on the whole set", net, jax.tree.map(lambda a: a[0], variables)
    return None


def mirrored(data: Dataset) -> dict[str, Any]:
    """Return how often the nearest training image has the class of a test image, and of its mirror.

        share of test images x with  y(x) = y(argmin_t |x - t|),  and with x mirrored

    over pixels, of evenly spaced images of each class. Where left and right carry no meaning, the
    two shares are alike; where they do, a mirrored image is nearer to other classes.

    Returns:
      ``upright`` and ``mirrored``, fractions, and ``n``, the number of test images.
    """
    known, labels = _some(data, data.train, KNOWN)
    asked, wanted = _some(data, data.test, ASKED)
    return {
        "upright": _right(known, labels, asked, wanted),
        "mirrored": _right(known, labels, asked[:, :, ::-1], wanted),
        "n": len(wanted),
    }


def _some(data: Dataset, split: Any, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return pixels of at most ``most`` images, averaged to ``SIDE``, and their classes."""
    each = max(1, most // data.classes)
    rows = np.concatenate(
        [
            group[np.unique(np.linspace(0, len(group) - 1, each).astype(int))]
            for group in class_indices(split.labels, data.classes)
            if len(group)
        ]
    )
    found = []
    for lo in range(0, len(rows), 100):
        pixels = data.transform.inverse(np.asarray(split.images[rows[lo : lo + 100]]))
        found.append(_averaged(np.asarray(pixels, np.float32)))
    return np.concatenate(found), split.labels[rows]


def _averaged(images: np.ndarray) -> np.ndarray:
    """Return means over squares of pixels, so that no side is above ``SIDE`` by much."""
    n, h, w, c = images.shape
    k = max(1, max(h, w) // SIDE)
    rest = (h % k) // 2, (w % k) // 2  # cut alike on both sides: mirroring commutes with it
    cut = images[:, rest[0] : rest[0] + h // k * k, rest[1] : rest[1] + w // k * k]
    small: np.ndarray = cut.reshape(n, h // k, k, w // k, k, c).mean((2, 4))
    return small


def _right(known: np.ndarray, labels: np.ndarray, asked: np.ndarray, wanted: np.ndarray) -> float:
    """Return the share of ``asked`` images whose nearest known image is of the class wanted."""
    rows, queries = (a.reshape(len(a), -1).astype(np.float64) for a in (known, asked))
    distance = (rows**2).sum(1) - 2 * queries @ rows.T
    return float((labels[distance.argmin(1)] == wanted).mean())
