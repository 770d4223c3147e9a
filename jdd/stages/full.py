"""Stage ``full``: the whole training set under the expert recipe, the ceiling a set is held to.

Trained once per dataset, net and recipe, in the cache folder, where every run finds it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jdd.data import cache
from jdd.evaluation.accuracy import accuracy
from jdd.experts import train
from jdd.experts.store import Store
from jdd.files import write_atomic
from jdd.session import Session, locked
from jdd.stages import experts
from jdd.stages.base import Estimate, Stage
from jdd.work import Work, fingerprint


def _place(work: Work) -> Path:
    folder = cache.folder(work.config.data.cache_dir)
    return folder / "full" / _identity(work)


def _identity(work: Work) -> str:
    return fingerprint([work.settings(1, flat=False), int(work.config.baselines.full_epochs)])


def _file(work: Work) -> Path:
    return _place(work) / "accuracy.json"


def result(work: Work) -> dict[str, Any] | None:
    """Return the baseline as result.json holds it, None when it is off or not yet run."""
    if not work.config.baselines.full:
        return None
    if _file(work).exists():
        return dict(json.loads(_file(work).read_text(encoding="utf-8")))
    kept: dict[str, Any] | None = work.recall("full").get(_identity(work))  # a cleared cache
    return kept


def trained(work: Work, session: Session) -> Any:
    """Return the variables of the baseline's net; trained again where the cache was cleared."""
    store = Store(_place(work), work.settings(1, flat=False), work.like)
    if store.epochs(0) < int(work.config.baselines.full_epochs):
        _run(work, session)
    return store.read(0, store.epochs(0))


def _run(work: Work, session: Session) -> None:
    epochs = int(work.config.baselines.full_epochs)
    recipe = work.recipe(flat=False)
    store = Store(_place(work), work.settings(1, flat=False), work.like)
    with locked(store.directory, session):
        train.train(
            store, work.net, recipe, float(work.config.experts.lr), work.data, 1, epochs,
            int(work.config.experts.seed), session, work.devices, stage="full", keep_all=False,
        )  # fmt: skip
        last = store.read_group(0, store.epochs(0))
        value = float(accuracy(work.net, last, work.data.test, session)[0])
        found = {"mean": value, "std": None, "n": 1, "epochs": store.epochs(0)}
        text = json.dumps({**found, "net": work.net.name}) + "\n"
        write_atomic(_file(work), lambda file: file.write(text.encode()))
        work.remember("full", _identity(work), {**found, "net": work.net.name})


def _estimate(work: Work) -> Estimate:
    if _done(work):
        return Estimate(0.0, 0, "cached, or off")
    return experts.cost(work, 1, int(work.config.baselines.full_epochs), 1, flat=False)


def _done(work: Work) -> bool:
    return not work.config.baselines.full or result(work) is not None


STAGE = Stage(
    name="full",
    inputs=(),
    fingerprint=_identity,
    run=_run,
    estimate=_estimate,
    done=_done,
)
