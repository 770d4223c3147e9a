"""Stage ``protocol``: nets trained on the set by one protocol for all sets; off by default.

The set, random real images and coresets train the same nets on the same views, with the labels of
one teacher ('soft') and with the classes of what a view shows ('hard'). Every (row, column) is
measured once and stored in ``checkpoints/protocol.json``. The table is ``schema/protocols.py``.

Labels of views are stored in ``protocol/`` while a row is measured; where they would take more than
``_ROOM`` bytes the teacher labels in the students' steps instead.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.augment import views
from jdd.errors import BadInput
from jdd.evaluation import train_eval
from jdd.product.pairs import PairSet
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.schema.common import Common
from jdd.schema.protocols import COMMON, OWN, Protocol
from jdd.soft_labels import codec, modes
from jdd.soft_labels.objective import DistillationLoss
from jdd.soft_labels.reader import LabelReader
from jdd.soft_labels.store import LabelStore, digest
from jdd.stages import evaluate, labelling, protocol_nets, protocol_rows
from jdd.stages.base import Estimate, Stage
from jdd.stages.experts import training_cost
from jdd.stages.protocol_nets import ProtocolTeacher
from jdd.stages.protocol_rows import RANDOM, SET, Material, Product, Row
from jdd.stages.validation import baseline_size
from jdd.tasks.base import summaries, tester
from jdd.tasks.classify import CLASSIFY
from jdd.training.recipe import Recipe
from jdd.training.schedules import Cosine

COLUMNS = {"soft": "kl", "hard": "hard"}  # and their losses
_ROOM = 2 << 30  # bytes of the stored labels of a row


def validate(config: Common, kind: str) -> None:
    """Refuse a common protocol where it is undefined. ``kind`` is that of ``tasks.objective``.

    Raises:
      BadInput: naming the key.
    """
    name = config.eval.protocol
    if name == OWN:
        return
    allowed = "own: the protocol is of labelled images that train fresh nets"
    if config.spec.task != "classify":
        raise BadInput("config.eval.protocol", f"{name}, of a set for {config.spec.task}", allowed)
    if kind != "distill":
        found = f"{name}, of a set to {kind} trained nets"
        raise BadInput("config.eval.protocol", found, allowed)


def validate_nets(context: RunContext) -> None:
    """Refuse images that the protocol's nets and views are not of.

    Raises:
      BadInput: naming the key.
    """
    if _on(context):
        protocol = _protocol(context)
        protocol_nets.made(context, protocol, context.data)
        views.validate(protocol_nets.spec(protocol, context.data), context.data.shape)


def _protocol(context: RunContext) -> Protocol:
    return COMMON[context.config.eval.protocol]


def _on(context: RunContext) -> bool:
    return context.config.eval.protocol != OWN


def _set(context: RunContext) -> Product:
    found = context.load_set(context.seeds[0])
    assert not isinstance(found, PairSet)  # ``validate``
    return found


def _rows(context: RunContext, dset: Product) -> list[Row]:
    return protocol_rows.rows(dset, context.normalised, context.config.baselines.random)


def _keys(context: RunContext, dset: Product) -> dict[tuple[str, str], str]:
    """Return the key of every measurement's stored result, by (row, column)."""
    protocol, data = _protocol(context), context.normalised
    teacher = protocol_nets.made(context, protocol, data).store.directory.name
    identity = [
        dataclasses.asdict(protocol), data.fingerprint, teacher, context.seeds[0],
        context.config.eval.n,
    ]  # fmt: skip
    found = {}
    for row in _rows(context, dset):
        own = dset.recipe["fingerprint"] if row.name == SET else [row.each, row.draws]
        for column in COLUMNS:
            found[row.name, column] = fingerprint([*identity, row.name, own, column])
    return found


def _run(context: RunContext, session: Session) -> None:
    session.metrics.start("protocol")
    protocol, data, dset = _protocol(context), context.normalised, _set(context)
    teacher = protocol_nets.trained(context, protocol, data, session)
    right = f"{100 * teacher.facts['accuracy']:.1f} % on the test images"
    session.say(f"protocol {context.config.eval.protocol}: teacher {teacher.net.name} {right}")
    context.remember("protocol-teacher", context.config.eval.protocol, teacher.facts)
    keys = _keys(context, dset)
    for number, row in enumerate(_rows(context, dset)):
        missing = [c for c in COLUMNS if keys[row.name, c] not in context.recall("protocol")]
        if missing:
            # Named by its key: the labels of another protocol or set are never met there.
            place = _folder(context) / f"{row.name}-{keys[row.name, 'soft']}"
            own = {column: keys[row.name, column] for column in missing}
            _measure(context, row, dset, teacher, own, place, session, number)
        known = context.recall("protocol")
        for column in COLUMNS:
            _log(session, number, row, column, known[keys[row.name, column]])
    shutil.rmtree(_folder(context), ignore_errors=True)


def _folder(context: RunContext) -> Path:
    """Return the folder of the labels of the row that is being measured."""
    return context.workdir / "protocol"


def _measure(
    context: RunContext,
    row: Row,
    dset: Product,
    teacher: ProtocolTeacher,
    keys: dict[str, str],
    place: Path,
    session: Session,
    number: int,
) -> None:
    """Measure the columns ``keys`` of a row, the ``number``-th, each remembered under its key."""
    protocol, seed = _protocol(context), context.seeds[0]
    found = protocol_rows.material(row, dset, context.normalised, teacher, seed)
    mode, stores = _labelled(context, row, found, teacher, place, session)
    nets = len(stores) if row.name.startswith("random") else context.config.eval.n
    for column, key in keys.items():
        planned = plan(protocol, found, context.normalised.classes, column, mode, teacher)
        accuracies = _trained(context, row, found, planned, stores, nets, teacher, column, session)
        figures = summaries(["accuracy"], accuracies)
        _log(session, number, row, column, figures)
        if column == list(keys)[-1]:
            shutil.rmtree(place, ignore_errors=True)
        context.remember("protocol", key, figures)  # last: with it the column is complete


def _log(session: Session, number: int, row: Row, column: str, found: Mapping[str, Any]) -> None:
    """Log a column of a row, the ``number``-th, unless it has been."""
    step = number * len(COLUMNS) + list(COLUMNS).index(column) + 1
    figures = {"accuracy": found["mean"], "n": found["n"]}
    session.metrics.log("protocol", step, **figures, row=row.name, labels=column)


def plan(
    protocol: Protocol,
    found: Material,
    classes: int,
    column: str,
    mode: str,
    teacher: ProtocolTeacher,
) -> train_eval.Plan:
    """Return the training of students on a row.

    Args:
      found: the row's images.
      column: one of ``COLUMNS``.
      mode: views or online, of the labels.
    """
    n, epochs = found.labels.shape[1], protocol.epochs
    recipe = Recipe(
        optimizer=protocol.optimizer, lr=protocol.lr, weight_decay=protocol.weight_decay,
        epochs=epochs, passes=epochs, batch=protocol.batch, order="stored",
        schedule=Cosine(stretch=protocol.stretch), loss=COLUMNS[column],
        temperature=protocol.temperature, strategy="", classes=classes,
    )  # fmt: skip
    loss = DistillationLoss("logits", classes, recipe.static, mode)
    if loss.online:
        loss = loss._replace(teachers=(teacher.net,))
    steps = recipe.total_steps(n)
    assert recipe.schedule is not None
    rates = recipe.schedule.rates(protocol.lr, steps, recipe.steps_per_epoch(n))
    return train_eval.Plan(recipe.static.replace(distillation=loss), rates, epochs, steps, epochs)


def _labelled(
    context: RunContext,
    row: Row,
    found: Material,
    teacher: ProtocolTeacher,
    place: Path,
    session: Session,
) -> tuple[str, list[LabelStore]]:
    """Return the mode of the labels and a store of each draw, complete."""
    protocol, data = _protocol(context), context.normalised
    n, epochs = found.labels.shape[1], protocol.epochs
    batch, spec = min(protocol.batch, n), protocol_nets.spec(protocol, data)
    needed = modes.expected_bytes(
        "views", n, epochs, data.classes, "logits", 0, views.stored_bytes(), batch
    )
    mode = "views" if needed * len(found.images) <= _ROOM else "online"
    stores = []
    for i, images in enumerate(found.images):
        settings = {
            "mode": mode, "images": digest(images), "teachers": teacher.facts["digest"],
            "view": spec.to_json(), "form": "logits", "epochs": epochs, "batch": batch,
            "classes": data.classes, "seed": context.seeds[0],
        }  # fmt: skip
        store = LabelStore(place / str(i), settings)
        if store.epochs() < epochs:
            label = labelling.Labeller(
                labelling.Rule(spec, mode), [(teacher.net, teacher.variables)], images, batch,
                context.devices,
            )  # fmt: skip
            name = f"label {row.name}"
            labelling.fill(
                store, label, epochs, n, batch, context.seeds[0], session, name, found.fresh
            )
        stores.append(store)
    return mode, stores


def _trained(
    context: RunContext,
    row: Row,
    found: Material,
    planned: train_eval.Plan,
    stores: Sequence[LabelStore],
    nets: int,
    teacher: ProtocolTeacher,
    column: str,
    session: Session,
) -> np.ndarray:
    """Return the accuracies of a row's nets, ``[nets, 1]``: one on each draw, or all on the set."""
    own = [i % len(stores) for i in range(nets)]
    loss, classes = planned.recipe.distillation, found.labels[own]
    assert loss is not None
    shared = {"teachers": (jax.tree.map(jnp.asarray, teacher.variables),)} if loss.online else None
    weights = None if found.weights is None else np.broadcast_to(found.weights, classes.shape)
    each = [stores[i] for i in own]
    reader = LabelReader(each, classes, planned.passes, shared, weights, int(bool(found.fresh)))
    several = len(found.images) > 1
    images = found.images if several else train_eval.repeated(found.images[0], nets)
    fresh = None if found.fresh is None else partial(_for_all, found.fresh)
    test = tester(CLASSIFY, CLASSIFY.problems(context.normalised.test))
    return train_eval.test_nets(
        teacher.net, planned, images, classes, test, context.seeds[0], "protocol", session,
        context.devices, context.config.eval.at_once, None, reader, fresh,
        f"protocol, {row.name}, {column}",
    )  # fmt: skip


def _for_all(fresh: Any, keys: jax.Array, epoch: int) -> jax.Array:
    """Return a generator's images of an epoch, the same for every net."""
    images = fresh(epoch)
    return jnp.broadcast_to(images, (len(keys), *images.shape))


def results(context: RunContext) -> dict[str, Any] | None:
    """Return the entry ``protocol`` of result.json; None if it is off or not measured."""
    if not _on(context) or not context.set_path(context.seeds[0]).exists():
        return None
    dset, known = _set(context), context.recall("protocol")
    keys, protocol = _keys(context, dset), _protocol(context)
    if not all(key in known for key in keys.values()):
        return None
    rows = {
        row.name: {
            "images_per_class": row.each,
            "bytes_per_class": row.bytes,
            "own": _own(context, row, dset),
            **{column: known[keys[row.name, column]] for column in COLUMNS},
        }
        for row in _rows(context, dset)
    }
    data = context.normalised
    return {
        "name": context.config.eval.protocol,
        "teacher": context.recall("protocol-teacher").get(context.config.eval.protocol),
        "student": protocol.net_for(data.shape),
        "data": data.fingerprint,
        **dataclasses.asdict(protocol),
        "flip": protocol_nets.spec(protocol, data).flip,
        "rows": rows,
    }


def _own(context: RunContext, row: Row, dset: Product) -> dict[str, Any] | None:
    """Return a row's accuracy by the set's own recipe; None where it was not measured."""
    accuracy, baselines = evaluate.results(context)
    if row.name == SET:
        return accuracy.get(context.config.net.name) or next(iter(accuracy.values()), None)
    # The run's baseline repeats the images of small classes; a row has each image once.
    if row.name == RANDOM and row.each == baseline_size(dset) // dset.classes:
        return baselines[context.baseline_nets[0]].get("random")
    return None


def _done(context: RunContext) -> bool:
    return not _on(context) or results(context) is not None


def _estimate(context: RunContext) -> Estimate:
    """Estimate teacher and students; of students a step of the same net and batch is timed."""
    protocol, data = _protocol(context), context.data
    teacher = protocol_nets.made(context, protocol, data)
    first = teacher.estimate(data, context.devices, "the teacher")
    recipe = Recipe(batch=protocol.batch, classes=data.classes, strategy="")
    one = training_cost(teacher.net, recipe, data, 1, 1, 1, context.devices)
    step = one.seconds / recipe.steps_per_epoch(data.train.size)
    draws, n = context.config.baselines.random, context.config.eval.n
    nets = 2 * (draws + n * (1 + len(protocol_rows.CORESETS)))
    steps = protocol.epochs * codec.steps_per_epoch(
        context.config.ipc * data.classes, min(protocol.batch, context.config.ipc * data.classes)
    )
    note = f"{first.note}; {nets} students of {steps} steps, on as many images as the set's"
    return Estimate(
        first.seconds + step * steps * nets, max(first.temporaries, one.temporaries), note,
        first.disk,
    )  # fmt: skip


STAGE = Stage(
    name="protocol",
    fingerprint=lambda context: fingerprint(results(context)),
    run=_run,
    estimate=_estimate,
    done=_done,
    logged=lambda context: ["protocol", protocol_nets.LINE, protocol_nets.EARLY],
    on=_on,
)
