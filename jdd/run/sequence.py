"""The stages of a prepared run, one after another, in one process or in several."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import jax

from jdd import config as configs
from jdd import parallel
from jdd.run import result
from jdd.run import workdir as workdirs
from jdd.run.context import RunContext
from jdd.run.options import Options
from jdd.run.session import Session
from jdd.schema.common import Common
from jdd.stages import contents, distill, evaluate, probe, registry, report
from jdd.stages.base import Stage, guarded
from jdd.storage import remote

# Stages whose items are divided over processes; process 0 runs the others.
DIVIDED = ("experts", "squeeze", *registry.MAKERS, "relabel", "evaluate")


def run(
    context: RunContext,
    chosen: list[Stage],
    mode: str,
    notes: Sequence[str],
    options: Options,
    processes: parallel.Processes,
) -> dict[str, Any]:
    """Run the stages that are needed and return result.json; of processes but the first, {}."""
    config, directory = context.config, context.workdir
    context.writes = processes.first
    session = Session(
        directory,
        config.tensorboard and processes.first,
        config.progress,
        wandb=config.wandb and processes.first,
        options=options,
        processes=processes if processes.count > 1 else None,
    )
    with session.signals():
        context = probe.applied(context)
        session.gather()  # process 0 has the lock, and every process has read what lies there
        if session.first:
            distill.update_training_settings(context)
        if session.agree(mode == "all" and finished(context, chosen)):
            session.say(f"{directory} is finished; its result:")
            return _ended(context, session)
        if session.first:
            probe.begin(context)
            workdirs.write_config(context)
            contents.remember(context)
        for line in (*notes, *context.notes, *context.store_notes):
            session.say(line)
        for stage in [s for s in chosen if mode in ("all", s.name)]:
            missing = needed(stage, context, chosen if mode == "all" else [])
            if not session.agree(missing or mode == "report"):
                if stage.on(context):
                    session.say(f"{stage.name}: complete")
                elif mode == stage.name:
                    session.say(f"{stage.name}: off (--config.baselines.{stage.name}=true)")
                continue
            _run_stage(stage, context, session)
            if stage.name == "probe":
                context = probe.applied(context)
                if session.first:
                    workdirs.write_config(context)
            session.metrics.stop(stage.name)
            remote.push()
            if waited := session.waited():
                session.say(f"{stage.name}: {waited}")
        measured = distill.STAGE.done(context) and evaluate.STAGE.done(context)
        if measured and mode in ("all", *registry.FIGURES) and not report.STAGE.done(context):
            if session.first:
                report.STAGE.run(context, session)
        return _ended(context, session, report.STAGE.done(context))


def _ended(context: RunContext, session: Session, fresh: bool = True) -> dict[str, Any]:
    """Return the run's result, once every process is here."""
    session.gather()
    if session.processes is not None:
        session.processes.close()
    return result.finish(context, fresh) if session.first else {}


def _run_stage(stage: Stage, context: RunContext, session: Session) -> None:
    """Run a stage; of several processes each does its share, or the first does all of it."""
    config, several = context.config, session.processes is not None
    session.profile.begin(stage.name, stage.name in _stepped(config))
    session.divided = several and stage.name in DIVIDED
    if session.first or session.divided:
        with guarded(stage.name, config, context.data), precision(config, stage.name):
            stage.run(context, session)
    session.divided = False
    if not several:
        return
    own = {"rows": session.metrics.taken(), "remembered": context.taken()}
    every = session.gather(json.dumps(own).encode())
    for value in every[1:] if session.first else []:
        found = json.loads(value)
        session.metrics.adopt(found["rows"])
        for name, values in found["remembered"].items():
            for key in values.keys() - context.recall(name).keys():
                context.remember(name, key, values[key])
    session.gather()  # all of it is on disk


def precision(config: Common, stage: str) -> AbstractContextManager[None]:
    """Return a context in which matrix products have a stage's precision.

    ``config.precision`` where images are learned, ``config.train_precision`` elsewhere if given.
    """
    train = "" if stage in _stepped(config) else config.train_precision
    made: AbstractContextManager[None] = jax.default_matmul_precision(train or config.precision)
    return made


def _stepped(config: Common) -> set[str]:
    """Return the names of the stages that learn images or a generator, step by step."""
    phases = {phase.name for phase in configs.phases(config) if phase.kind == "method"}
    return {*registry.MAKERS, "probe", *phases}


def finished(context: RunContext, chosen: Sequence[Stage]) -> bool:
    """Return whether no stage of a run must run."""
    return not any(needed(stage, context, chosen) for stage in chosen)


def needed(stage: Stage, context: RunContext, chosen: Sequence[Stage]) -> bool:
    """Return whether a stage must run. Experts are skipped if no pending stage reads them."""
    if stage.done(context):
        return False
    readers = [other for other in chosen if stage.name in other.inputs and not stage.inputs]
    return not readers or not all(reader.done(context) for reader in readers)
