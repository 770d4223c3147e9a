"""Stage ``relabel``: stores every view shown to a student and the teachers' labels of it.

By ``relabel.mode`` the labels are per view, per image, or absent (``jdd/soft_labels/modes.py``).

There is one store (``jdd/soft_labels/store.py``) for each seed's set, and one for each baseline
draw of random real images: gains that the labels also bring to real images are not due to the set.
An epoch is a permutation of the images, cut into batches; the last batch is filled up with the
epoch's first images, each in another view.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jdd.augment import randaugment, views
from jdd.errors import BadInput
from jdd.methods import decoupled
from jdd.pretrained.teachers import Teacher
from jdd.product.distilled_set import DistilledSet
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.schema.decoupled import MAGNITUDE
from jdd.soft_labels import codec, modes
from jdd.soft_labels.store import LabelStore, digest
from jdd.stages import label_stores, labelling, squeeze
from jdd.stages.base import Estimate, Stage, pace, scaled, share, timed
from jdd.stages.baselines import random_sets
from jdd.stages.costs import example
from jdd.storage import settings_files
from jdd.training import trainer


def validate(context: RunContext) -> None:
    """Refuse impossible labels, views and student steps before anything is made.

    Raises:
      BadInput: naming the key.
    """
    config, shape, relabel = context.decoupled, context.data.shape, context.decoupled.relabel
    mode, k, classes = relabel.mode, relabel.k, context.data.classes
    temperature, places = config.post.temperature, decoupled.places(config, context.teachers)
    modes.validate(mode, relabel.form, classes, k, temperature, places)
    if mode == "map" and config.post.loss == "mse_gt" and k < classes:
        found = f"{k} with post.loss=mse_gt and label maps, whose other logits are 0"
        raise BadInput("config.relabel.k", found, f"{classes}, all classes, or another loss")
    count, parts = config.ipc * classes, config.post.accumulate
    batch = min(config.eval.batch, count)
    if not trainer.cuts(batch, parts):
        found = f"{parts} parts of a step of {batch} images"
        raise BadInput("config.post.accumulate", found, "equal parts of two images or more")
    views.validate(decoupled.spec(config, shape), shape)
    if relabel.randaugment:
        randaugment.validate(shape[-1])
        if mode == "map":
            found = f"{relabel.randaugment} with relabel.mode=map, whose labels do not move with it"
            raise BadInput("config.relabel.randaugment", found, "0, or --config.relabel.mode=views")
    elif relabel.magnitude != MAGNITUDE:
        found = f"{relabel.magnitude} with relabel.randaugment=0"
        raise BadInput("config.relabel.magnitude", found, "--config.relabel.randaugment=2 with it")
    words = [(teacher.word, teacher.frozen) for teacher in context.teachers]
    label_stores.validate_relations(context, decoupled.training(config), words)
    if config.quantise == "jpeg" and shape[-1] not in (1, 3):
        found = f"jpeg, of images of {shape[-1]} channels"
        raise BadInput("config.quantise", found, "round, truncate or none")


def settings(context: RunContext, digest: str, count: int, seed: int) -> dict[str, Any]:
    """Return the settings that the labels of ``count`` images with this digest depend on."""
    config, relabel = context.decoupled, context.decoupled.relabel
    keys = ("bn", "combine", "form", "k")
    hard = relabel.form == "logits"  # the temperature is the student's, set later
    mode, places = relabel.mode, decoupled.places(config, context.teachers)
    # Included only where used, so that older stores stay valid.
    named = ({"mode": mode} if mode != "views" else {}) | ({"places": places} if places else {})
    return named | {
        "images": digest,
        "teachers": squeeze.identity(context),
        "view": decoupled.spec(config, context.data.shape).to_json(),
        **{key: getattr(relabel, key) for key in keys},
        "temperature": 0.0 if hard else config.post.temperature,
        "epochs": config.eval.epochs,
        "batch": min(config.eval.batch, count),
        "classes": context.data.classes,
        "seed": seed,
    }


Images = Callable[[], np.ndarray]


def stores(
    context: RunContext, dset: DistilledSet, seed: int, record: bool = False
) -> Iterator[tuple[LabelStore, Images]]:
    """Yield the stores of a run, each with a function that returns its images: the set, then the
    random draws. Writes nothing except, with ``record``, the draws' digests.
    """
    count, own = len(dset.images), digest(dset.images)
    yield _store(context, context.store_name(seed), own, count, seed), lambda: dset.images
    draws = context.config.baselines.random if seed == context.seeds[0] else 0
    # Draws are a function of data and seed: their digests are stored, not recomputed at each call.
    key = fingerprint([context.data.fingerprint, seed, dset.transform.kind, count])
    known = context.recall("random-images").get(key, [])
    if len(known) < draws:
        known = [digest(images) for images in random_sets(context, dset, draws)[0]]
        if record:
            context.remember("random-images", key, known)
    for i in range(draws):
        store = _store(context, f"labels/random-{i}", known[i], count, seed)
        yield store, partial(_draw, context, dset, i)


def _draw(context: RunContext, dset: DistilledSet, i: int) -> np.ndarray:
    return random_sets(context, dset, i + 1)[0][i]


def _store(context: RunContext, name: str, digest: str, count: int, seed: int) -> LabelStore:
    place, made = context.workdir / name, settings(context, digest, count, seed)
    if not all(teacher.trained for teacher in context.teachers):
        made |= {"teachers": _labelled_by(place, made["teachers"])}
    return LabelStore(place, made)


def _labelled_by(place: Path, teachers: list[Any]) -> list[Any]:
    """Return teachers with the weights that stored labels name, if all else agrees.

    Teachers that were deleted are trained again before labels are made, and compared then.
    """
    known = settings_files.read(place / "labels.json")
    named = known.get("teachers") if isinstance(known, dict) else None
    bare = [{**teacher, "weights": ""} for teacher in teachers]
    if isinstance(named, list) and all(isinstance(one, dict) for one in named):
        if [{**one, "weights": ""} for one in named] == json.loads(json.dumps(bare)):
            return named
    return teachers


def _run(context: RunContext, session: Session) -> None:
    session.metrics.start("relabel")
    made, epochs = 0, context.config.eval.epochs
    for seed in context.seeds:
        dset = context.fixed_set(seed)
        for store, images in stores(context, dset, seed, record=True):
            made += 1
            if not session.mine(made - 1):
                continue
            line = {"labels": store.directory.name, "epochs": epochs}
            log = partial(session.metrics.log, "relabel", made, **line)
            if not store.has(epochs):
                _label(context, store, images(), seed, session, log)
            log()


def _label(
    context: RunContext,
    store: LabelStore,
    images: np.ndarray,
    seed: int,
    session: Session,
    log: Callable[[], object],
) -> None:
    epochs, n = context.config.eval.epochs, len(images)
    batch = min(context.config.eval.batch, n)
    label = _labeller(context, context.teachers, images, batch)
    name = f"relabel {store.directory.name}"
    labelling.fill(store, label, epochs, n, batch, seed, session, name, before_last=log)


def _labeller(
    context: RunContext, teachers: Sequence[Teacher], images: np.ndarray, batch: int
) -> labelling.Labeller:
    """Return the labelling of a run's images by its keys."""
    config, relabel = context.decoupled, context.decoupled.relabel
    rule = labelling.Rule(
        decoupled.spec(config, images.shape[1:]), relabel.mode, relabel.k, relabel.bn,
        relabel.combine, randaugment.of(context.data.transform),
    )  # fmt: skip
    pairs = [(teacher.frozen, teacher.variables()) for teacher in teachers]
    return labelling.Labeller(rule, pairs, images, batch, context.devices)


def _estimate(context: RunContext) -> Estimate:
    dset, epochs = example(context), context.config.eval.epochs
    assert isinstance(dset, DistilledSet)
    batch = min(context.config.eval.batch, len(dset.images))
    few = share(batch, context.data.shape, context.devices)
    label = _labeller(context, context.blank.teachers, np.asarray(dset.images[:few]), few)
    rows = np.arange(few, dtype=np.int32)
    step = timed(lambda: label(0, 0, 0, rows)) * batch / few
    config = context.decoupled
    relabel, places = config.relabel, decoupled.places(config, context.teachers)
    mode, own = relabel.mode, 0.0
    if mode in ("static", "map"):
        own = timed(lambda: label.whole(rows)) * batch / few
    sets = len(context.seeds) + context.config.baselines.random
    size = sets * modes.expected_bytes(
        mode, len(dset.images), epochs, context.data.classes, relabel.form, relabel.k,
        views.stored_bytes(relabel.shuffle, relabel.randaugment), batch, places,
    )  # fmt: skip
    once = codec.steps_per_epoch(len(dset.images), batch)
    note = f"{sets} sets of {epochs * once} batches of {pace(step)}" + scaled(few, batch)
    note += f", {once} of {pace(own)}" * (own > 0)
    note += f"; mode {mode}"
    if places:
        note += f", label maps of {places[0]} x {places[1]} places"
    return Estimate(sets * once * (epochs * step + own), 0, note, size)


def _done(context: RunContext) -> bool:
    epochs = context.config.eval.epochs
    for seed in context.seeds:
        if not context.set_path(seed).exists():
            return False
        for store, _ in stores(context, context.fixed_set(seed), seed):
            if not store.has(epochs):
                return False
    return True


STAGE = Stage(
    name="relabel",
    fingerprint=lambda context: fingerprint(
        [
            store.settings
            for seed in context.seeds
            for store, _ in stores(context, context.fixed_set(seed), seed)
        ]
    ),
    run=_run,
    estimate=_estimate,
    done=_done,
)
