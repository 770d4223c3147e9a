"""Stage ``relabel``: the teachers' labels of every view that a student will be shown.

A store (``jdd/labels/store.py``) for each seed's set, and one for each draw of random real images
that it is held to: what these labels do for real images is no merit of the set. An epoch is a
permutation of the images, cut into batches; what the last one lacks comes from the epoch's first
images again, each in another view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import rng
from jdd.augment import views
from jdd.distilled import DistilledSet
from jdd.errors import BadInput
from jdd.inner import fit
from jdd.labels import forms, teach
from jdd.labels.committee import combine
from jdd.labels.store import LabelStore
from jdd.methods import decoupled
from jdd.session import Session
from jdd.stages import squeeze, stored
from jdd.stages.base import Estimate, Stage, scaled, share, timed
from jdd.stages.evaluate import random_sets
from jdd.stages.students import example
from jdd.work import Work, fingerprint


def fits(work: Work) -> None:
    """Refuse labels and views that cannot be made, before anything is.

    Raises:
      BadInput: naming the key.
    """
    config, shape = work.config, work.data.shape
    form, k = str(config.relabel.form), int(config.relabel.k)
    forms.check(form, work.data.classes, k, float(config.post.temperature))
    views.check(decoupled.spec(config, shape), shape)
    if config.quantise == "jpeg" and shape[-1] not in (1, 3):
        found = f"jpeg, of images of {shape[-1]} channels"
        raise BadInput("config.quantise", found, "round, truncate or none")


def settings(work: Work, digest: str, count: int, seed: int) -> dict[str, Any]:
    """Return what the labels of ``count`` images of that digest depend on."""
    config, relabel = work.config, work.config.relabel
    keys = ("bn", "combine", "form", "k")
    hard = relabel.form == "logits"  # its temperature is the student's, whatever it will be
    return {
        "images": digest,
        "teachers": squeeze.identity(work),
        "view": dict(decoupled.spec(config, work.data.shape)._asdict()),
        **{key: relabel[key] for key in keys},
        "temperature": 0.0 if hard else float(config.post.temperature),
        "epochs": int(config.eval.epochs),
        "batch": min(int(config.eval.batch), count),
        "classes": work.data.classes,
        "seed": seed,
    }


Images = Callable[[], np.ndarray]


def stores(work: Work, dset: DistilledSet, seed: int) -> Iterator[tuple[LabelStore, Images]]:
    """Yield the stores that a run wants, each with what returns its images: the set, then the
    random draws.
    """
    count, own = len(dset.images), stored.digest(dset.images)
    yield _store(work, work.store_name(seed), own, count, seed), lambda: dset.images
    draws = int(work.config.baselines.random) if seed == work.seeds[0] else 0
    # Draws are a function of data and seed: their digests are kept, not worked out at each look.
    key = fingerprint([work.data.fingerprint, seed, dset.transform.kind, count])
    known = work.recall("random-images").get(key, [])
    if len(known) < draws:
        known = [stored.digest(images) for images in random_sets(work, dset, draws)[0]]
        work.remember("random-images", key, known)
    for i in range(draws):
        store = _store(work, f"labels/random-{i}", known[i], count, seed)
        yield store, partial(_draw, work, dset, i)


def _draw(work: Work, dset: DistilledSet, i: int) -> np.ndarray:
    return random_sets(work, dset, i + 1)[0][i]


def _store(work: Work, name: str, digest: str, count: int, seed: int) -> LabelStore:
    return LabelStore(work.workdir / name, settings(work, digest, count, seed))


def _run(work: Work, session: Session) -> None:
    session.metrics.start("relabel")
    made, epochs = 0, int(work.config.eval.epochs)
    for seed in work.seeds:
        dset = work.load_set(seed)
        for store, images in stores(work, dset, seed):
            if not store.has(epochs):
                _label(work, store, images(), seed, session)
            made += 1
            session.metrics.log("relabel", made, labels=store.directory.name, epochs=epochs)


def _label(work: Work, store: LabelStore, images: np.ndarray, seed: int, session: Session) -> None:
    config = work.config
    epochs, batch = int(config.eval.epochs), min(int(config.eval.batch), len(images))
    store.create()
    bar = session.bar(epochs, f"relabel {store.directory.name}", start=store.epochs())
    say = Labeller(work, images, batch)
    for epoch in range(store.epochs(), epochs):
        session.check()
        index = order(seed, epoch, len(images), batch)
        found = [say(seed, epoch, step, rows) for step, rows in enumerate(index)]
        packed = [views.pack(view) for view, _ in found]
        stacked = {name: np.stack([one[name] for one in packed]) for name in packed[0]}
        store.write(epoch, index, stacked, np.stack([logits for _, logits in found]))
        bar.update(epoch + 1)
    bar.close()


def order(seed: int, epoch: int, n: int, batch: int) -> np.ndarray:
    """Return the images of an epoch's steps, ``[steps, batch]``: each of them, once or twice."""
    rows = rng.host(seed, "relabel/order", epoch).permutation(n).astype(np.int32)
    steps = -(-n // batch)
    return np.resize(rows, steps * batch).reshape(steps, batch)


class Labeller:
    """``f(seed, epoch, step, rows [b]) -> (view, logits [b, classes])`` over one set of images."""

    def __init__(self, work: Work, images: np.ndarray, batch: int):
        config = work.config
        self._images = jnp.asarray(images)
        self._draw = teach.drawer(
            decoupled.spec(config, images.shape[1:]), batch, tuple(images.shape[1:3])
        )
        self._say = [teach.speaker(t.still, str(config.relabel.bn)) for t in work.teachers]
        self._variables = [jax.tree.map(jnp.asarray, t.variables()) for t in work.teachers]
        self._how = str(config.relabel.combine)
        self._steps = fit.steps_per_epoch(fit.Recipe(order="stored", batch=batch), len(images))

    def __call__(self, seed: int, epoch: int, step: int, rows: np.ndarray) -> tuple[Any, Any]:
        view = self._draw(rng.key(seed, "relabel/view", epoch * self._steps + step))
        x = teach.show(self._images, jnp.asarray(rows), view)
        said = [say(own, x) for say, own in zip(self._say, self._variables, strict=True)]
        return jax.device_get((view, said[0] if len(said) == 1 else combine(said, self._how)))


def _estimate(work: Work) -> Estimate:
    dset, epochs = example(work), int(work.config.eval.epochs)
    batch = min(int(work.config.eval.batch), len(dset.images))
    blank, few = _Untrained(work), share(batch, work.data.shape, work.devices)
    say = Labeller(blank, np.asarray(dset.images[:few]), few)  # type: ignore[arg-type]
    rows = np.arange(few, dtype=np.int32)
    step = timed(lambda: say(0, 0, 0, rows)[1]) * batch / few
    draws = int(work.config.baselines.random)
    sets = len(work.seeds) + draws
    relabel = work.config.relabel
    size = sets * forms.expected_bytes(
        len(dset.images), epochs, work.data.classes, str(relabel.form), int(relabel.k),
        views.stored_bytes(int(relabel.shuffle)), batch,
    )  # fmt: skip
    steps = epochs * -(-len(dset.images) // batch)
    note = f"{sets} sets of {steps} batches of {step * 1e3:.0f} ms" + scaled(few, batch)
    return Estimate(sets * steps * step, 0, note, size)


class _Untrained:
    """A run whose teachers nobody has trained."""

    def __init__(self, work: Work):
        self.config, self.teachers = work.config, work.blank.teachers


def _done(work: Work) -> bool:
    epochs = int(work.config.eval.epochs)
    for seed in work.seeds:
        if not work.set_path(seed).exists():
            return False
        for store, _ in stores(work, work.load_set(seed), seed):
            if not store.has(epochs):
                return False
    return True


STAGE = Stage(
    name="relabel",
    inputs=("squeeze", "recover"),
    fingerprint=lambda work: fingerprint(
        [
            store.settings
            for seed in work.seeds
            for store, _ in stores(work, work.load_set(seed), seed)
        ]
    ),
    run=_run,
    estimate=_estimate,
    done=_done,
)
