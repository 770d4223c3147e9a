"""Runs a config's stages in order, skipping any whose output is already complete."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, cast

import jax

from jdd import config as configs
from jdd import data, methods, parallel
from jdd.data import pairs
from jdd.errors import BadInput, nearest
from jdd.memory import room, size
from jdd.run import external_sets, metrics, result, sequence
from jdd.run import workdir as workdirs
from jdd.run.context import RunContext
from jdd.run.options import Options
from jdd.run.session import clock, locked
from jdd.schema.common import Common
from jdd.schema.pairs import PairConfig
from jdd.stages import (
    classifier,
    contents,
    distill,
    phases,
    plateau,
    probe,
    protocol,
    registry,
    relabel,
    scores,
    validation,
    whitening,
)
from jdd.stages.base import Stage, guarded, validate_memory
from jdd.storage import checkpoints, failures

_NONE = Options()
STAGES: dict[str, Stage] = {
    entry.name: registry.load(entry.module)._replace(inputs=entry.inputs)
    for entry in registry.STAGES
}


def stages(config: Common) -> list[Stage]:
    """Return the stages of a config's method, including its own phases, in order.

    Raises:
      BadInput: the method's spec names a stage that does not exist.
    """
    own = configs.phases(config)
    names = tuple(phase.name for phase in own)
    found = {phase.name: phases.stage_of(own, phase) for phase in own}
    for name in registry.MAKERS:
        found[name] = STAGES[name]._replace(inputs=(*STAGES[name].inputs, *names))
    found = STAGES | found
    for name in configs.stage_names(config):
        if name not in found:
            near = nearest(name, found)
            hint = f"did you mean {near}? " if near else ""
            where = f"SPEC.stages of {config.spec.name}"
            raise BadInput(where, f"{name!r}", f"{hint}(stages: {', '.join(found)})")
    return [found[name] for name in configs.stage_names(config)]


def run(
    loaded: configs.Loaded,
    workdir: str | None = None,
    mode: str = "all",
    set_path: str | None = None,
    command: str = "",
    options: Options = _NONE,
) -> dict[str, Any]:
    """Run a config's stages (``mode`` 'all'), one of them, or the estimate; return result.json.

    Raises:
      BadInput: the user's input is invalid; nothing has been overwritten.
      Diverged, Interrupted: raised by a stage; the checkpoint is saved.
      OutOfMemory, StorageError: memory ran out, or the disk; earlier checkpoints remain valid.
    """
    _processes(options)  # before any device is used
    loaded.config.spec.register()
    if set_path is not None:
        return external_sets.run(loaded, set_path, workdir, command, options)
    absent = mode == "estimate" and data.absent(loaded.config.data)
    given: frozenset[str] | None = loaded.given
    config, notes = configs.resolve(loaded.config, absent=absent, given=given)
    place = workdir or configs.default_workdir(loaded.config, loaded.spec, loaded.typed)
    directory = Path(place)
    config = configs.as_saved(config, loaded.explicit, directory)
    if (begun := configs.as_begun(config, loaded.given, directory)) is not None:
        config, notes, given = begun, [], None
    workdirs.pull_stores(config, options.coordinator)
    workdirs.validate(directory, config)
    with jax.default_matmul_precision(config.precision):
        with guarded("data", config):
            fit, old = mode != "estimate", begun is not None
            context = prepare(config, directory, command, notes, absent, fit, given, old)
        if line := configs.sentence(context.config, loaded.explicit, _size(context.data)):
            notes = [line, *notes]
        workdirs.validate(directory, context.config)
        chosen = _with_probe(context, stages(context.config))
        _validate_mode(mode, chosen)
        plateau.validate(context)
        if mode == "estimate":
            validate_memory(context)
            return _estimate(context, chosen, notes)
        _validate_stages(context, chosen, mode)
        alone = not options.coordinator
        over = mode == "all" and sequence.finished(context, chosen)
        if alone and over and workdirs.obstacle(directory)[1]:
            if config.progress:
                print(f"{directory} is finished and read-only; its result:", flush=True)
            return result.finish(probe.applied(context))
        processes = _processes(options)
        lock = locked(directory) if processes.first else contextlib.nullcontext()
        with _others_informed(processes), lock, failures.guarded(directory):
            _validate_holder(context, mode)  # another command may have run in the meantime
            workdirs.validate(directory, context.config)
            return sequence.run(context, chosen, mode, notes, options, processes)


def _processes(options: Options) -> parallel.Processes:
    return parallel.begin(options.coordinator, options.processes, options.process)


@contextlib.contextmanager
def _others_informed(processes: parallel.Processes) -> Iterator[None]:
    """Inform the other processes of a run when this one ends before its end."""
    try:
        yield
    except BaseException as error:
        processes.inform(str(error) or type(error).__name__)
        raise


def _with_probe(context: RunContext, chosen: list[Stage]) -> list[Stage]:
    """Return a run's stages; with the probe, if there is one, before the set is made."""
    if not context.probing:
        return chosen
    at = [stage.name for stage in chosen].index(context.maker)
    return [*chosen[:at], STAGES["probe"], *chosen[at:]]


def prepare(
    config: Common,
    directory: Path,
    command: str,
    notes: list[str] | None = None,
    absent: bool = False,
    fit: bool = True,
    given: Collection[str] | None = None,
    begun: bool = False,
) -> RunContext:
    """Load the data and run all checks that would otherwise fail later, inside a stage.

    Values resolved from the data are added to ``notes``. ``absent`` uses a placeholder for the
    data, and ``fit=False`` leaves the whitening unfitted: both suffice to estimate a run's cost.
    With ``given``, the keys that are set, the others are fitted to data without own settings.
    ``begun``: ``config`` has the settings that the run in ``directory`` began with.
    """
    loaded: data.Dataset | pairs.PairDataset
    if config.spec.task == "retrieval":
        paired = cast(PairConfig, config)
        loaded = pairs.load(paired.data, paired.text)
    else:
        loaded = data.placeholder(config.data) if absent else data.load(config.data, fit)
    size = _size(loaded)
    fitted = given is not None and configs.row_of(config, size) is not None
    config, added = configs.resolve(config, loaded.shape, absent, given, size)
    if begun:
        added = [line for line in added if not line.startswith("settings")]
        added = [f"settings: those that the run in {directory} began with", *added]
    if notes is not None:
        notes += [line for line in added if line not in notes]
    if config.spec.validate_data:
        config.spec.validate_data(configs.flat(config), cast(Any, loaded))
    objective = str(configs.flat(config).get("objective", "distill"))
    scores.validate(config, objective)
    protocol.validate(config, objective)
    if isinstance(loaded, pairs.PairDataset):
        context = RunContext(config, loaded, directory, command)
        _validate_pairs(cast(PairConfig, config), loaded)
    else:
        context = RunContext(config, loaded, directory, command, data.origin(config, loaded, fit))
        _validate_classes(config, loaded)
        context.probing = probe.keys(context, given or (), fitted, begun)
    if fit and not absent and not workdirs.holds_external_set(directory):
        distill.validate_begun(context)  # refused before anything is written
    for name in config.nets:
        context.make_net(name)
    if "experts" in [stage.name for stage in stages(config)]:
        _ = context.store  # rejects a store made with other settings
    methods.validate_teachers(context.config, context.teachers)  # so does reading the teachers
    if "relabel" in [stage.name for stage in stages(config)]:
        relabel.validate(context)
    if "quality" in configs.stage_names(config) or classifier.curved(context):
        classifier.validate(context)
    protocol.validate_nets(context)
    return context


def _size(loaded: data.Dataset | pairs.PairDataset) -> configs.Size | None:
    """Return what settings are fitted to; None of pairs, to which none are."""
    if isinstance(loaded, pairs.PairDataset):
        return None
    return configs.Size(loaded.shape, loaded.classes, loaded.train.size)


def _validate_pairs(config: PairConfig, loaded: pairs.PairDataset) -> None:
    """Refuse more pairs than there are images."""
    most = len(loaded.train.images)
    if config.pairs > most:
        raise BadInput("config.pairs", str(config.pairs), f"2 to {most}, the training images")


def _validate_classes(config: Common, loaded: data.Dataset) -> None:
    """Refuse more images per class than the smallest class has, by ``config.ipc_short``."""
    if config.ipc_short == "noise" and "pix_init" not in config.spec.keys:
        found = f"noise, and {config.spec.title} does not learn images"
        raise BadInput("config.ipc_short", found, "repeat")
    groups = data.class_indices(loaded.train.labels, loaded.classes)
    data.validate_ipc(groups, config.ipc, config.ipc_short)


def _validate_mode(mode: str, chosen: list[Stage]) -> None:
    names = ["all", *(stage.name for stage in chosen), "estimate"]
    if mode == "probe" not in names:
        found = "probe: the rates of this run are given, published, or of a method that needs none"
        raise BadInput("--mode", found, f"one of {', '.join(names)}")
    if mode == "scores" not in names:
        raise BadInput("--mode", "scores, which are off", "--config.scores=true with it")
    if mode not in names:
        raise BadInput("--mode", f"{mode!r}", f"one of {', '.join(names)}")


def _validate_stages(context: RunContext, chosen: list[Stage], mode: str) -> None:
    """Refuse anything a stage would refuse later. Nothing has been written yet, not even the lock.

    Raises:
      BadInput: naming the key or flag.
    """
    config = context.config
    _validate_holder(context, mode)
    if mode != "report" and contents.given(context):
        contents.validate(context, distill.STAGE.done(context))
    if config.tensorboard:
        metrics.writer()
    if config.wandb:
        metrics.validate_wandb()
    _validate_steps(context)
    needed = [
        stage
        for stage in chosen
        if (mode == "all" and sequence.needed(stage, context, chosen))
        or (mode == stage.name and (mode == "report" or sequence.needed(stage, context, [])))
    ]
    for stage in needed if mode != "all" else []:
        _require(stage, context, mode, chosen)
    names = {stage.name for stage in needed}
    if names:
        workdirs.writable("--workdir", context.workdir)
    if names - {"report"}:
        validate_memory(context)
    if "experts" in names:
        workdirs.writable("config.experts.dir", context.store_path)
    if "squeeze" in names:
        workdirs.writable("config.squeeze.dir", context.squeeze_path)
    if names & {*registry.CACHED, "scores"} or names and classifier.curved(context):
        workdirs.writable_cache(context)
    made = [stage for stage in chosen if stage.name in STAGES["evaluate"].inputs]
    if names & {"evaluate", "scores"} and all(stage.done(context) for stage in made):
        for seed in context.seeds:
            validation.validate(context, distill.rated(context, context.load_set(seed)))


def _validate_holder(context: RunContext, mode: str) -> None:
    """Refuse a directory that contains an evaluation, except to rewrite its report."""
    if mode != "report" and workdirs.holds_external_set(context.workdir):
        found = f"{context.workdir} holds the evaluation of a set that was made elsewhere"
        raise BadInput("--workdir", found, "give --workdir=OTHER")


def _validate_steps(context: RunContext) -> None:
    """Refuse fewer steps than are already done, before anything is written."""
    folder, steps = context.workdir / "checkpoints", context.config.steps
    made = [("steps", folder / context.stage(seed), steps) for seed in context.seeds]
    for key, directory, requested in (*phases.begun(context), *made):
        done = checkpoints.latest(directory)
        if done is not None and done > requested:
            raise BadInput(f"config.{key}", f"{requested}, and {done} are done", f"{done} or more")


def _require(stage: Stage, context: RunContext, mode: str, chosen: list[Stage]) -> None:
    for name in stage.inputs:
        if any(other.name == name and not other.done(context) for other in chosen):
            raise BadInput(
                f"--mode={mode}",
                f"the output of {name} is not in {context.workdir}",
                f"run with --mode={name} first, or without --mode",
            )


def _estimate(context: RunContext, chosen: list[Stage], notes: list[str]) -> dict[str, Any]:
    """Print memory and time of each stage on this machine; write nothing."""
    for line in (*notes, *context.notes):
        print(line)
    print(f"{'stage':10} {'time':>14} {'XLA temporaries':>16} {'disk':>10}  measured")
    total, found = 0.0, {}
    jobs = [(stage.name, stage.estimate) for stage in chosen]
    if whitening.held(context):
        jobs.insert(0, ("whitening", whitening.estimate))
    for name, estimate in jobs:
        where = "data" if name == "whitening" else name
        with guarded(where, context.config, context.data), sequence.precision(context.config, name):
            cost = estimate(context)
        total += cost.seconds
        memory, disk = (size(n) if n else "-" for n in (cost.temporaries, cost.disk))
        more = _exceeds(cost.temporaries, context)
        row = f"{name:10} {clock(cost.seconds):>14} {memory:>16} {disk:>10}  {cost.note}{more}"
        print(row, flush=True)
        found[name] = {
            "seconds": cost.seconds,
            "temporaries_bytes": cost.temporaries,
            "disk_bytes": cost.disk,
        }
    print(f"in all {clock(total)}; {_held(context)}")
    return found


def _exceeds(count: int, context: RunContext) -> str:
    """Return in words that ``count`` bytes do not fit into the free memory; '' if they do."""
    free = room(context.devices)
    return f"; more than this machine's memory ({size(free)} free)" if count > free else ""


def _held(context: RunContext) -> str:
    """Return the memory of the images, in addition to the temporaries, or their file on disk."""
    splits = [split.images for split in (context.data.train, context.data.test)]
    numbers = sum(math.prod(images.shape) for images in splits)
    matrices = f", the whitening {size(n)} in memory" if (n := whitening.held(context)) else ""
    if context.config.data.stream:
        return f"the images lie in a file of {size(numbers)}{matrices}"
    streamed = f" (or in a file of {size(numbers)}, with --config.data.stream=true)"
    return (
        f"the data holds {size(4 * numbers)} next to the temporaries"
        + (streamed if 4 * numbers > 8 << 30 else "")
        + matrices
        + _exceeds(4 * numbers, context)
    )
