"""What a prior draws while it trains: pictures of its samples, and a curve of their quality.

Every ``quality.every`` steps and at the last one, ``samples/NAME/STEP.png`` of the working
directory shows images of the same latents, by class; the last ``quality.keep`` of them are kept. A
line ``quality-NAME`` of the metrics has the figures of ``quality.curve`` images and, of a prior
that encodes, the mean squared error of test images that are encoded and decoded again, in pixels of
0 to 1. An observer reads the state and draws by its own keys: a run has the same bits without it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.methods.base import Method, State
from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.product.generator import GeneratorSet
from jdd.report import plain
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.stages import classifier
from jdd.stages.classifier import Classifier, Real
from jdd.storage.files import write_atomic

FOLDER = "samples"
CLASSES, EACH = 10, 8  # of a picture
BATCH = 50  # images that are drawn at a time

Observe = Callable[[int, State], None]
Draw = Callable[[State, int, jax.Array, np.ndarray], np.ndarray]


def observer(
    context: RunContext, session: Session, name: str, method: Method, seed: int, total: int
) -> Observe | None:
    """Return ``f(step, state)`` for the outer loop of a prior or generator; None if it is off.

    Args:
      name: of the loop in metrics and checkpoints.
      total: the number of its steps.
    """
    keys = classifier.keys(context)
    if keys is None or not keys.every or not total:
        return None
    draw: Draw
    if method.samples is not None:
        draw = _of_prior(method)
    elif name == context.stage(seed):
        draw = partial(_of_product, method)
    else:
        return None
    return _Observer(context, session, name, method, seed, total, draw)


def _of_prior(method: Method) -> Draw:
    assert method.samples is not None
    compiled = jax.jit(method.samples)

    def draw(state: State, at: int, key: jax.Array, labels: np.ndarray) -> np.ndarray:
        found = []
        for lo in range(0, len(labels), BATCH):
            rows = labels[lo : lo + BATCH]
            few = jnp.asarray(np.pad(rows, (0, BATCH - len(rows))))
            found.append(np.asarray(compiled(state, jax.random.fold_in(key, lo), few))[: len(rows)])
        return np.concatenate(found)

    return draw


def _of_product(
    method: Method, state: State, at: int, key: jax.Array, labels: np.ndarray
) -> np.ndarray:
    product = method.distilled(state, at)
    if not isinstance(product, GeneratorSet):  # the set of a method with priors as phases
        return np.zeros((0, 1, 1, 1), np.float32)
    return product.drawn(key, labels, BATCH)


class _Observer:
    """Writes the pictures and the curve of one loop."""

    def __init__(
        self,
        context: RunContext,
        session: Session,
        name: str,
        method: Method,
        seed: int,
        total: int,
        draw: Draw,
    ):
        keys = classifier.keys(context)
        assert keys is not None
        self._context, self._session, self._keys = context, session, keys
        self._name, self._seed, self._total, self._draw = name, seed, total, draw
        self._folder = context.workdir / FOLDER / name
        self._line, self._begun = f"quality-{name}", False
        self._again = jax.jit(method.reconstruct) if method.reconstruct else None
        self._net: tuple[Classifier, Real] | None = None

    def __call__(self, at: int, state: State) -> None:
        if not self._begun:  # what a stopped run, or one with other settings, saw after this step
            self._begun = True
            self._session.metrics.truncate(self._line, at)
            for step, path in pictures(self._folder):
                if step > at:
                    path.unlink()
        if not at or at % self._keys.every and at != self._total:
            return
        if self._folder.joinpath(f"{at:07d}.png").exists() and (
            self._session.metrics.has(self._line, at) or not self._keys.curve
        ):
            return
        labels = np.repeat(np.arange(min(CLASSES, self._context.data.classes)), EACH)
        images = self._draw(state, at, rng.key(self._seed, "samples/picture"), labels)
        if not len(images) or not np.isfinite(images).all():
            return
        self._picture(at, images, labels)
        if self._keys.curve:
            self._point(at, state)

    def _picture(self, at: int, images: np.ndarray, labels: np.ndarray) -> None:
        data = self._context.data
        names = {"class_names": list(data.class_names[: labels.max() + 1])}
        shown = DistilledSet(images, labels.astype(np.int32), "hard", None, names, data.transform)
        self._folder.mkdir(parents=True, exist_ok=True)
        grid = preview.grid(shown)

        def write(file: BinaryIO) -> None:
            file.write(grid)

        write_atomic(self._folder / f"{at:07d}.png", write)
        for _, path in pictures(self._folder)[: -self._keys.keep]:
            path.unlink()

    def _point(self, at: int, state: State) -> None:
        """Log the figures of a step; the classifier is trained before the first of them."""
        context, session, keys = self._context, self._session, self._keys
        if self._net is None:
            begun = time.perf_counter()
            net = classifier.trained(context, session)
            self._net = net, classifier.real(context, net, keys.curve, session)
            session.metrics.leave_out(self._name, time.perf_counter() - begun)
        net, to = self._net
        images = self._draw(state, at, rng.key(self._seed, "samples/curve"), to.labels)
        if not np.isfinite(images).all():
            return
        found = classifier.measured(
            net, to, images, to.labels, min(keys.k, len(to.rows) - 1), session
        )
        if self._again is not None:
            found["reconstruction"] = self._reconstruction(state)
            context.remember("quality-reconstruction", self._name, found["reconstruction"])
        words = plain.classifier(net.facts)
        session.metrics.log(self._line, at, **found, n=len(images), classifier=words)

    def _reconstruction(self, state: State) -> float:
        """Return the mean squared error of test images, encoded and decoded, in pixels."""
        assert self._again is not None
        images = np.asarray(self._context.data.test.images[: self._keys.curve])
        again = np.asarray(self._again(state, jnp.asarray(images)))
        inverse = self._context.data.transform.inverse
        return float(np.mean((inverse(images) - inverse(again)) ** 2))


def pictures(folder: Path) -> list[tuple[int, Path]]:
    """Return the pictures in a folder by their steps, in order."""
    found = folder.glob("[0-9]*.png")
    return sorted((int(path.stem), path) for path in found if path.stem.isdigit())
