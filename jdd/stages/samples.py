"""What a prior draws while it trains: pictures of its samples, and a curve of their quality.

Every ``quality.every`` steps and at the last one, ``samples/NAME/STEP.png`` of the working
directory shows images of the same latents, by class; of a prior that encodes
``samples/NAME/reconstruction-STEP.png`` shows test images over what they are decoded to. The last
``quality.keep`` of both are kept. A line ``quality-NAME`` of the metrics has the figures of
``quality.curve`` images and, of a prior that encodes, the mean squared error of test images that
are encoded and decoded again, in pixels of 0 to 1. An observer reads the state and draws by its own
keys: a run has the same bits without it.
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

from jdd import config as configs
from jdd import rng
from jdd.config.files import stage_names
from jdd.data import class_indices
from jdd.methods.base import Method, State
from jdd.parallel import planned
from jdd.product import html, preview
from jdd.product.distilled_set import DistilledSet
from jdd.product.generator import GeneratorSet
from jdd.report import plain
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.stages import classifier
from jdd.stages.base import Estimate, pace, timed
from jdd.stages.classifier import Classifier, Real
from jdd.storage import failures
from jdd.storage.files import write_atomic

FOLDER = "samples"
CLASSES, EACH = 10, 8  # of a picture
AGAIN, PAIRS = "reconstruction-", 2  # of a picture of reconstructions: its name, rows of images
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
    if (draw := _drawing(context, name, method, seed, total)) is None:
        return None
    return _Observer(context, session, name, method, seed, total, draw)


def _drawing(context: RunContext, name: str, method: Method, seed: int, total: int) -> Draw | None:
    """Return what draws the images of a loop that is looked at; None if it is not."""
    keys = classifier.keys(context)
    if keys is None or not keys.every or not total:
        return None
    if method.samples is not None:
        return _of_prior(method)
    return partial(_of_product, method) if name == context.stage(seed) else None


def estimate(
    context: RunContext, name: str, method: Method, seed: int, total: int, loops: int = 1
) -> Estimate:
    """Return the cost of the pictures and the curve of ``loops`` loops such as ``observer``'s.

    Images are drawn from the state of step 0, and measured by an untrained classifier. Its training
    counts here, unless stage ``quality`` has it: with several priors in the row of the first.
    """
    nothing, keys = Estimate(0.0, 0, ""), classifier.keys(context)
    draw = _drawing(context, name, method, seed, total)
    if keys is None or draw is None or not loops:
        return nothing
    state, key = method.init(seed), rng.key(0, "estimate")
    few = (np.arange(BATCH) % context.data.classes).astype(np.int32)
    images = draw(state, 0, key, few)
    if not len(images):
        return nothing
    batch = timed(lambda: draw(state, 0, key, few), 1)
    batches, point = -(-min(CLASSES, context.data.classes) * EACH // BATCH), 0.0
    trained = nothing
    if keys.curve:
        n = min(keys.curve, context.data.train.size)
        batches += -(-n // BATCH)
        point = classifier.seconds(context, images, n)
        if "quality" not in stage_names(context.config) and _first(context, name, seed):
            trained = classifier.estimate(context)
    temporaries = [trained.temporaries]
    if method.samples is not None:
        temporaries.append(planned(jax.jit(method.samples), state, key, jnp.asarray(few)))
    if method.reconstruct is not None:
        shown = jnp.asarray(np.asarray(context.data.test.images[: max(keys.curve, 1)]))
        again = jax.jit(method.reconstruct)
        point += timed(lambda: again(state, shown), 1)
        temporaries.append(planned(again, state, shown))
    points, each = -(-total // keys.every), batches * batch + point
    note = f"; {loops * points} pictures" + " and points of the curve" * bool(keys.curve)
    note += f", {pace(each)} each" + f"; {trained.note}" * bool(trained.seconds)
    return Estimate(loops * points * each + trained.seconds, max(temporaries), note)


def _first(context: RunContext, name: str, seed: int) -> bool:
    """Return whether a loop is the first of a run that may be looked at."""
    phases = [phase.name for phase in configs.phases(context.config) if phase.kind == "method"]
    return name.partition("-")[0] == phases[0] if phases else name == context.stage(seed)


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
            for step, path in (*pictures(self._folder), *pictures(self._folder, AGAIN)):
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
        if self._again is not None:
            self._reconstructions(at, state)
        if self._keys.curve:
            self._point(at, state)

    def _picture(self, at: int, images: np.ndarray, labels: np.ndarray) -> None:
        data = self._context.data
        names = {"class_names": list(data.class_names[: labels.max() + 1])}
        shown = DistilledSet(images, labels.astype(np.int32), "hard", None, names, data.transform)
        self._write(at, "", preview.grid(shown))

    def _reconstructions(self, at: int, state: State) -> None:
        """Draw test images of every class shown over what they are decoded to."""
        data, rows, words = self._context.data, list[np.ndarray](), list[str]()
        for chosen in _of_each(data.test.labels, min(CLASSES, data.classes)):
            images = np.asarray(data.test.images[chosen])
            for shown, word in ((images, "test"), (self._decoded(state, images), "decoded")):
                rows.append(html.pixels(shown, data.transform))
                words.append(word)
        self._write(at, AGAIN, preview.strips(rows, words))

    def _write(self, at: int, prefix: str, picture: bytes) -> None:
        """Write a picture, and delete those that are too old."""
        failures.folder(self._folder, self._context.workdir)

        def write(file: BinaryIO) -> None:
            file.write(picture)

        write_atomic(self._folder / f"{prefix}{at:07d}.png", write)
        for _, path in pictures(self._folder, prefix)[: -self._keys.keep]:
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
        images = np.asarray(self._context.data.test.images[: self._keys.curve])
        again = self._decoded(state, images)
        inverse = self._context.data.transform.inverse
        return float(np.mean((inverse(images) - inverse(again)) ** 2))

    def _decoded(self, state: State, images: np.ndarray) -> np.ndarray:
        assert self._again is not None
        return np.asarray(self._again(state, jnp.asarray(images)))


def _of_each(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """Return ``PAIRS`` rows of indices with an image of each class; a small class is repeated."""
    groups = [group for group in class_indices(labels, classes) if len(group)]
    return [np.asarray([group[i % len(group)] for group in groups]) for i in range(PAIRS)]


def pictures(folder: Path, prefix: str = "") -> list[tuple[int, Path]]:
    """Return the pictures in a folder by their steps, in order."""
    found = ((path.stem.removeprefix(prefix), path) for path in folder.glob(f"{prefix}[0-9]*.png"))
    return sorted((int(step), path) for step, path in found if step.isdigit())
