"""Stage ``full``: the whole training set under the expert recipe, an upper bound for sets.

Trained once per dataset, net and recipe; stored in the cache folder and shared by all runs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

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
from jdd.storage import json_files


def _directory(context: RunContext, net: str) -> Path:
    folder = cache.folder(context.config.data.cache_dir)
    return folder / "full" / identity(context, net)


def _settings(context: RunContext, net: str) -> dict[str, Any]:
    return context.settings(1, flat=False, net=net)


def identity(context: RunContext, net: str) -> str:
    """Return the hash of every setting that changes the baseline of a net."""
    towers = getattr(context.config, "towers", None)  # of pairs
    # Pretrained weights are in the settings, by their content.
    more = [] if towers is None else [section(towers) | {"weights": ""}]
    return fingerprint([_settings(context, net), context.config.baselines.full_epochs, *more])


def _file(context: RunContext, net: str) -> Path:
    return _directory(context, net) / "accuracy.json"


def _store(context: RunContext, net: str) -> Store:
    like = jax.eval_shape(context.make_net(net).init, jax.random.key(0))
    verify = context.config.verify_files
    return Store(_directory(context, net), _settings(context, net), like, verify=verify)


def result(context: RunContext, net: str = "") -> dict[str, Any] | None:
    """Return the baseline as stored in result.json; None if it is off or not yet run.

    ``net`` is its name, by default the first of the baselines' nets.
    """
    net = net or context.baseline_nets[0]
    if not context.config.baselines.full:
        return None
    if found := json_files.recall(_file(context, net)):
        return found
    # Without the file the cache has been cleared, or it is damaged.
    stored: dict[str, Any] | None = context.recall("full").get(identity(context, net))
    return stored


def trained(context: RunContext, session: Session) -> Any:
    """Return the variables of the first baseline net; retrained if the cache was cleared."""
    net = context.baseline_nets[0]
    store = _store(context, net)
    if damaged := store.mend(0):
        session.warn(damaged)
    if store.epochs(0) < context.config.baselines.full_epochs:
        _train(context, session, net)
    return store.read(0, store.epochs(0))


def stored(context: RunContext) -> Any:
    """Return the variables of the first baseline net, stacked ``[1, ...]``; None if there are none.

    Nothing is trained: the cache may have been cleared, or the baseline be off.
    """
    if not context.config.baselines.full or isinstance(context.data, PairDataset):
        return None
    store = _store(context, context.baseline_nets[0])
    store.mend(0)
    last = store.epochs(0)
    return store.read_group(0, last) if last >= context.config.baselines.full_epochs else None


def _run(context: RunContext, session: Session) -> None:
    for net in context.baseline_nets:
        if result(context, net) is None:
            _train(context, session, net)


def _train(context: RunContext, session: Session, name: str) -> None:
    """Train and test one net; store its accuracy in the cache and in the working directory."""
    epochs, net = context.config.baselines.full_epochs, context.make_net(name)
    with locked(_directory(context, name), session):
        if isinstance(context.data, PairDataset):
            found = pairs.measure_all(context, epochs, session, net)
        else:
            store = _store(context, name)
            if damaged := store.mend(0):
                session.warn(damaged)
            train.train(
                store, net, context.recipe(flat=False), context.config.experts.lr, context.data, 1,
                epochs, context.config.experts.seed, session, context.devices,
                stage=_line(context, name), keep_all=False,
            )  # fmt: skip
            last = store.read_group(0, store.epochs(0))
            value = float(accuracy(net, last, context.data.test, session)[0])
            found = {"mean": value, "std": None, "n": 1, "epochs": store.epochs(0)}
        context.remember("full", identity(context, name), {**found, "net": net.name})
        json_files.write(_file(context, name), {**found, "net": net.name}, indent=None)


def _line(context: RunContext, net: str) -> str:
    """Return the name of a net's lines in the metrics."""
    return "full" if net == context.config.net.name else f"full-{net}"


def _estimate(context: RunContext) -> Estimate:
    left = [net for net in context.baseline_nets if result(context, net) is None]
    if not context.config.baselines.full:
        return Estimate(0.0, 0, "off")
    if not left:
        return Estimate(0.0, 0, "done before")
    epochs, data, recipe = context.config.baselines.full_epochs, context.data, context.recipe(False)
    found = [
        experts.training_cost(context.make_net(net), recipe, data, 1, epochs, 1, context.devices)
        for net in left
    ]
    note = "; ".join(one.note for one in found)
    most = max(found, key=lambda one: one.temporaries)
    paired = isinstance(context.data, PairDataset)  # their nets are not stored
    disk = 0 if paired else sum(one.disk for one in found)
    return most._replace(seconds=sum(one.seconds for one in found), note=note, disk=disk)


def _done(context: RunContext) -> bool:
    off = not context.config.baselines.full
    return off or all(result(context, net) is not None for net in context.baseline_nets)


STAGE = Stage(
    name="full",
    fingerprint=lambda context: identity(context, context.baseline_nets[0]),
    run=_run,
    estimate=_estimate,
    done=_done,
    on=lambda context: context.config.baselines.full,
    logged=lambda context: [_line(context, net) for net in context.baseline_nets],
)
