"""Stage ``squeeze``: trains teachers on the whole dataset, from which images are recovered.

There is one net per architecture, stored when its epochs are done. Its test accuracy is stored
next to it, since poor teachers give poor labels, whatever the images.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from jdd.errors import BadInput
from jdd.pretrained import train
from jdd.pretrained.teachers import Teacher, right
from jdd.report.diagnosis import IMBALANCE
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, locked
from jdd.stages.base import Estimate, Stage
from jdd.stages.experts import training_cost


def _key(teacher: Teacher) -> str:
    return fingerprint(teacher.settings)


def accuracies(context: RunContext) -> dict[str, float]:
    """Return the test accuracy of each measured teacher, by its name in the config."""
    known = context.recall("squeeze")
    return {t.word: known[_key(t)] for t in context.teachers if _key(t) in known}


def _run(context: RunContext, session: Session) -> None:
    config, data = context.decoupled, context.data
    for number, teacher in enumerate(context.teachers):
        stage, store = f"squeeze-{teacher.word}", teacher.store
        assert store is not None
        if not teacher.trained and session.mine(number):
            with session.alone(), locked(store.directory, session):
                train.train(
                    store, teacher.net, teacher.recipe, teacher.rates(len(data.train.labels)), data,
                    1, teacher.epochs, config.squeeze.seed, session, context.devices,
                    stage=stage, keep_all=False, named="squeeze",
                )  # fmt: skip
            session.metrics.stop(stage)
    if session.divided:
        session.gather()  # the others' teachers are there
    for teacher in context.teachers:
        if _key(teacher) not in context.recall("squeeze"):
            found = right(teacher, data.test, session)
            context.remember("squeeze", _key(teacher), found)
        known = context.recall("squeeze")[_key(teacher)]
        session.say(f"squeeze: {teacher.word} {100 * known:.1f} % on the test images")
        if known < 1.2 / data.classes:  # detects mixed-up classes before the long stages
            sizes = np.bincount(data.train.labels, minlength=data.classes)
            uneven = sizes.max() >= IMBALANCE * sizes.min() and not config.squeeze.balanced
            even = "--config.squeeze.balanced=true for classes of unequal size, " * bool(uneven)
            raise BadInput(
                f"teacher {teacher.word}", f"{100 * known:.1f} % right on the test images",
                f"more than chance: {even}train it longer (--config.squeeze.epochs, "
                "--config.squeeze.lr), with a new --workdir, and another --config.squeeze.dir "
                "where one is given",
            )  # fmt: skip


def _estimate(context: RunContext) -> Estimate:
    total, most, notes, disk = 0.0, 0, [], 0
    if context.config.data.stream:
        splits = (context.data.train, context.data.test)
        disk += sum(math.prod(split.images.shape) for split in splits)
        notes.append("the images' file among what lies on disk")
    for teacher in context.teachers:
        if teacher.trained:
            continue
        cost = training_cost(
            teacher.net, teacher.recipe, context.data, 1, teacher.epochs, 1, context.devices
        )
        total, most = total + cost.seconds, max(most, cost.temporaries)
        disk += cost.disk
        notes.append(f"{teacher.word}: {cost.note}")
    return Estimate(total, most, "; ".join(notes) or "trained", disk)


def _done(context: RunContext) -> bool:
    known = context.recall("squeeze")
    return all(teacher.trained and _key(teacher) in known for teacher in context.teachers)


def identity(context: RunContext) -> list[Any]:
    """Return the settings of the teachers and, once trained, the digests of their weights."""
    return [{**teacher.settings, "weights": teacher.digest()} for teacher in context.teachers]


STAGE = Stage(
    name="squeeze",
    fingerprint=lambda context: fingerprint([teacher.settings for teacher in context.teachers]),
    run=_run,
    estimate=_estimate,
    done=_done,
    logged=lambda context: [f"squeeze-{teacher.word}" for teacher in context.teachers],
)
