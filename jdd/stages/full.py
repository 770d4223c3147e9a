"""Stage ``full``: the whole training set under the expert recipe, an upper bound for sets.

Trained once per dataset, net and recipe; stored in the cache folder and shared by all runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jdd.data import cache
from jdd.data.pairs import PairDataset
from jdd.evaluation.accuracy import accuracy
from jdd.pretrained import train
from jdd.pretrained.store import Store
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, locked
from jdd.schema.values import section
from jdd.stages import experts, pairs
from jdd.stages.base import Estimate, Stage
from jdd.storage.files import write_text


def _directory(context: RunContext) -> Path:
    folder = cache.folder(context.config.data.cache_dir)
    return folder / "full" / _identity(context)


def _identity(context: RunContext) -> str:
    towers = getattr(context.config, "towers", None)  # of pairs
    more = [] if towers is None else [section(towers)]
    return fingerprint(
        [context.settings(1, flat=False), context.config.baselines.full_epochs, *more]
    )


def _file(context: RunContext) -> Path:
    return _directory(context) / "accuracy.json"


def result(context: RunContext) -> dict[str, Any] | None:
    """Return the baseline as stored in result.json; None if it is off or not yet run."""
    if not context.config.baselines.full:
        return None
    if _file(context).exists():
        return dict(json.loads(_file(context).read_text(encoding="utf-8")))
    stored: dict[str, Any] | None = context.recall("full").get(_identity(context))  # cache cleared
    return stored


def trained(context: RunContext, session: Session) -> Any:
    """Return the variables of the baseline's net; retrained if the cache was cleared."""
    store = Store(_directory(context), context.settings(1, flat=False), context.like)
    if store.epochs(0) < context.config.baselines.full_epochs:
        _run(context, session)
    return store.read(0, store.epochs(0))


def _run(context: RunContext, session: Session) -> None:
    epochs = context.config.baselines.full_epochs
    if isinstance(context.data, PairDataset):
        with locked(_directory(context), session):
            found = pairs.measure_all(context, epochs, session)
        write_text(_file(context), json.dumps({**found, "net": context.net.name}) + "\n")
        context.remember("full", _identity(context), {**found, "net": context.net.name})
        return
    recipe = context.recipe(flat=False)
    store = Store(_directory(context), context.settings(1, flat=False), context.like)
    with locked(store.directory, session):
        train.train(
            store, context.net, recipe, context.config.experts.lr, context.data, 1, epochs,
            context.config.experts.seed, session, context.devices,
            stage="full", keep_all=False,
        )  # fmt: skip
        last = store.read_group(0, store.epochs(0))
        value = float(accuracy(context.net, last, context.data.test, session)[0])
        found = {"mean": value, "std": None, "n": 1, "epochs": store.epochs(0)}
        text = json.dumps({**found, "net": context.net.name}) + "\n"
        write_text(_file(context), text)
        context.remember("full", _identity(context), {**found, "net": context.net.name})


def _estimate(context: RunContext) -> Estimate:
    if _done(context):
        return Estimate(0.0, 0, "cached, or off")
    if isinstance(context.data, PairDataset):
        return Estimate(0.0, 0, "not timed: all pairs")
    return experts.cost(context, 1, context.config.baselines.full_epochs, 1, flat=False)


def _done(context: RunContext) -> bool:
    return not context.config.baselines.full or result(context) is not None


STAGE = Stage(
    name="full",
    fingerprint=_identity,
    run=_run,
    estimate=_estimate,
    done=_done,
)
