"""The road: a config yields stages; each runs unless its output is complete."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from jdd import config as configs
from jdd import data, methods, specs
from jdd.data import cache
from jdd.errors import BadInput, nearest
from jdd.evaluation import rules
from jdd.memory import size
from jdd.product.distilled_set import DistilledSet
from jdd.report import plain
from jdd.run import metrics
from jdd.run import workdir as workdirs
from jdd.run.context import RunContext
from jdd.run.session import Session, clock, locked
from jdd.stages import (
    Stage,
    distill,
    evaluate,
    experts,
    full,
    relabel,
    report,
    scores,
    squeeze,
    whitening,
)
from jdd.stages.base import fits as fits_memory
from jdd.stages.base import guarded
from jdd.storage import checkpoints
from jdd.storage.files import write_atomic

STAGES: dict[str, Stage] = {
    s.STAGE.name: s.STAGE
    for s in (experts, squeeze, distill, relabel, evaluate, full, scores, report)
} | {distill.RECOVER.name: distill.RECOVER}


def stages(config: Any) -> list[Stage]:
    """Return the stages of a config's method, in order."""
    names = configs.stage_names(config)
    for name in names:
        if name not in STAGES:
            near = nearest(name, STAGES)
            hint = f"did you mean {near}? " if near else ""
            where = f"SPEC.stages of {config.spec.name}"
            raise BadInput(where, f"{name!r}", f"{hint}(stages: {', '.join(STAGES)})")
    return [STAGES[name] for name in names]


def run(
    loaded: configs.Loaded,
    workdir: str | None = None,
    mode: str = "all",
    set_path: str | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Run a config's stages (``mode`` 'all'), one of them, or the estimate; return result.json.

    Raises:
      BadInput: anything the user gave cannot be used; nothing has been overwritten.
      Diverged, Interrupted: as the stages do; the checkpoint is saved.
      OutOfMemory: memory ran out; the checkpoints made so far stand.
    """
    if set_path is not None:
        from jdd.run import external_sets

        return external_sets.run(loaded, set_path, workdir, command)
    absent = mode == "estimate" and data.absent(loaded.config.data)
    config, notes = configs.resolve(loaded.config, absent=absent)
    place = Path(workdir or configs.default_workdir(config, loaded.spec))
    check_workdir(place, config)
    with jax.default_matmul_precision(config.precision):
        with guarded("data", config):
            context = prepare(config, place, command, notes, absent, mode != "estimate")
        check_workdir(place, context.config)
        chosen = stages(context.config)
        _check_mode(mode, chosen)
        if mode == "estimate":
            fits_memory(context)
            return _estimate(context, chosen, notes)
        _check(context, chosen, mode)
        with locked(place):
            _check_holder(context, mode)  # another command may have begun, and ended, meanwhile
            check_workdir(place, context.config)
            return _travel(context, chosen, mode, notes)


def prepare(
    config: Any,
    place: Path,
    command: str,
    notes: list[str] | None = None,
    absent: bool = False,
    fit: bool = True,
) -> RunContext:
    """Load the data and check all that a stage would otherwise stumble over an hour later.

    What only the data have settled is added to ``notes``. ``absent``: a placeholder stands for the
    data, which is enough to foretell what a run costs; so is a whitening that ``fit`` False leaves
    unfitted.
    """
    loaded = data.placeholder(config.data) if absent else data.load(config.data, fit)
    config, told = configs.resolve(config, shape=loaded.shape, absent=absent)
    if notes is not None:
        notes += [line for line in told if line not in notes]
    if config.spec.validate_data:
        config.spec.validate_data(configs.flat(config), loaded)
    scores.fits(config, str(configs.flat(config).get("objective", "distill")))
    context = RunContext(config, loaded, place, command, data.origin(config, loaded, fit))
    counts = [len(g) for g in data.class_indices(loaded.train.labels, loaded.classes)]
    if config.ipc > min(counts):
        raise BadInput(
            "config.ipc", str(config.ipc), f"1 to {min(counts)}, the size of the smallest class"
        )
    for name in config.nets:
        context.make_net(name)
    if "experts" in [stage.name for stage in stages(config)]:
        _ = context.store  # refuses a store made with other settings
    methods.fits(context.config, context.teachers)  # as does looking at the teachers
    if "relabel" in [stage.name for stage in stages(config)]:
        relabel.fits(context)
    return context


def check_workdir(place: Path, config: Any) -> None:
    """Refuse a directory that cannot be written or holds a run of another config."""
    saved = place / "config.json"
    if saved.exists():
        old = configs.from_json(saved.read_text(encoding="utf-8"), str(saved), config.spec)
        free = {"eval.lr"} if _without_rate(place, old) else set[str]()
        configs.check_resume(configs.flat(old), config, str(place), free)
    workdirs.writable("--workdir", place)


def _without_rate(place: Path, config: Any) -> bool:
    """Tell whether the set in a directory has no rate to be trained at, and was given none."""
    path = place / "distilled.npz"
    if float(config.eval.lr if config.eval.lr != configs.AUTO else 0) > 0 or not path.exists():
        return False
    return rules.rate(DistilledSet.load(path)) is None


def _check_mode(mode: str, chosen: list[Stage]) -> None:
    names = ["all", *(stage.name for stage in chosen), "estimate"]
    if mode == "scores" not in names:
        raise BadInput("--mode", "scores, which are off", "--config.scores=true with it")
    if mode not in names:
        raise BadInput("--mode", f"{mode!r}", f"one of {', '.join(names)}")


def _check(context: RunContext, chosen: list[Stage], mode: str) -> None:
    """Refuse what a stage would refuse later: nothing is written yet, not even the lock.

    Raises:
      BadInput: naming the key or flag.
    """
    config = context.config
    _check_holder(context, mode)
    if config.tensorboard:
        metrics.writer()
    _check_steps(context)
    needed = [
        stage
        for stage in chosen
        if (mode == "all" and _needed(stage, context, chosen))
        or (mode == stage.name and (mode == "report" or _needed(stage, context, [])))
    ]
    for stage in needed if mode != "all" else []:
        _require(stage, context, mode, chosen)
    names = {stage.name for stage in needed}
    if names - {"report"}:
        fits_memory(context)
    if "experts" in names:
        workdirs.writable("config.experts.dir", context.store_path)
    if "squeeze" in names:
        workdirs.writable("config.squeeze.dir", context.squeeze_path)
    if "full" in names:
        workdirs.writable("config.data.cache_dir", cache.folder(config.data.cache_dir))
    made = [stage for stage in chosen if stage.name in evaluate.STAGE.inputs]
    if names & {"evaluate", "scores"} and all(stage.done(context) for stage in made):
        for seed in context.seeds:
            evaluate.check(context, distill.rated(context, context.load_set(seed)))


def _check_holder(context: RunContext, mode: str) -> None:
    """Refuse a directory that holds an evaluation; its report can be written again."""
    if mode != "report" and workdirs.assessed(context.workdir):
        found = f"{context.workdir} holds the evaluation of a set that was made elsewhere"
        raise BadInput("--workdir", found, "give --workdir=OTHER")


def _travel(
    context: RunContext, chosen: list[Stage], mode: str, notes: list[str]
) -> dict[str, Any]:
    config, place = context.config, context.workdir
    session = Session(place, config.tensorboard, config.progress)
    with session.signals():
        distill.retell(context)
        if mode == "all" and not any(_needed(stage, context, chosen) for stage in chosen):
            session.say(f"{place} is finished; its result:")
            return finish(context)
        write_config(context)
        for line in (*notes, *context.notes):
            session.say(line)
        wanted = [s for s in chosen if mode in ("all", s.name)]
        for stage in wanted:
            if not _needed(stage, context, chosen if mode == "all" else []) and mode != "report":
                session.say(f"{stage.name}: complete")
                continue
            with guarded(stage.name, config, context.data):
                stage.run(context, session)
            session.metrics.stop(stage.name)
            if told := session.waited():
                session.say(f"{stage.name}: {told}")
        measured = distill.STAGE.done(context) and evaluate.STAGE.done(context)
        if (
            measured
            and mode in ("all", "evaluate", "full", "scores")
            and not report.STAGE.done(context)
        ):
            report.STAGE.run(context, session)
        return finish(context, report.STAGE.done(context))


def _needed(stage: Stage, context: RunContext, chosen: list[Stage]) -> bool:
    """Tell whether a stage has to run: experts that nothing will read any more need not."""
    if stage.done(context):
        return False
    readers = [other for other in chosen if stage.name in other.inputs and not stage.inputs]
    return not readers or not all(reader.done(context) for reader in readers)


def _check_steps(context: RunContext) -> None:
    """Refuse fewer steps than are done, before anything is written."""
    for seed in context.seeds:
        done = checkpoints.latest(context.workdir / "checkpoints" / context.stage(seed))
        if done is not None and done > context.config.steps:
            raise BadInput(
                "config.steps", f"{context.config.steps}, and {done} are done", f"{done} or more"
            )


def _require(stage: Stage, context: RunContext, mode: str, chosen: list[Stage]) -> None:
    for name in stage.inputs:
        if STAGES[name] in chosen and not STAGES[name].done(context):
            raise BadInput(
                f"--mode={mode}",
                f"the output of {name} is not in {context.workdir}",
                f"run with --mode={name} first, or without --mode",
            )


def write_config(context: RunContext) -> None:
    """Write the resolved config into the run's directory."""
    text = configs.to_json(context.config)
    path = context.workdir / "config.json"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomic(path, lambda file: file.write(text.encode()))


def finish(context: RunContext, fresh: bool = True) -> dict[str, Any]:
    """Return result.json, with its last line for the person as ``summary``.

    ``fresh`` says whether the file is of the run's present state.
    """
    path = context.workdir / "result.json"
    if not path.exists() or not fresh:
        words = "has no result of this state yet: run without --mode for it"
        return {"summary": f"{context.workdir} {words}"}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {**found, "table": cross_table(found), "summary": headline(found, context.workdir)}


def cross_table(found: dict[str, Any]) -> str:
    """Return accuracy, n, time and size of several nets as a plain table, '' for one net."""
    accuracy = found["accuracy"]
    if len(accuracy) < 2:
        return ""
    costs = found.get("nets") or {}
    printed = (found.get("published_nets") or {}).get("values", {})
    rows = []
    for net, score in accuracy.items():
        cost, paper = costs.get(net, {}), printed.get(net)
        row = [net, plain.accuracy(score["mean"], score["std"], score["n"]), str(score["n"])]
        row.append(f"{cost['seconds']:.1f}" if cost.get("seconds") is not None else "-")
        row.append(f"{cost['parameters']:,}" if cost.get("parameters") else "-")
        row += [plain.accuracy(paper["mean"], paper["std"], 2) if paper else "-"] * bool(printed)
        rows.append(row)
    head = ["net", "accuracy, %", "n", "seconds", "parameters", *["published"] * bool(printed)]
    return plain.table(head, rows)


def percent(found: dict[str, Any]) -> str:
    """Return mean ± std of accuracies in words; a single value has no spread."""
    spread = f" ± {100 * found['std']:.1f}" if found.get("std") is not None else ""
    return f"{100 * found['mean']:.1f}{spread} %"


def headline(found: dict[str, Any], place: Path) -> str:
    """Return the run's last line: what was reached, and where the report is."""
    aim = found.get("objective") or {"kind": "distill"}
    say = _attacked if aim["kind"] == "attack" else percent
    parts = [
        f"{net} {say(a)} (n={a['n']}){_before(a, say)}" for net, a in found["accuracy"].items()
    ]
    rivals = []
    random, whole = found["baselines"]["random"], found["baselines"]["full"]
    if random:
        alike = " with the same teachers' labels" if found.get("teachers") else ""
        rivals.append(f"random real images{alike} {say(random)}")
    if whole and aim["kind"] != "attack":
        rivals.append(f"the whole training set {percent(whole)} after {whole['epochs']} epochs")
    against = f", against {' and '.join(rivals)}" if rivals else ""
    method = found.get("title") or specs.title(found["method"]) or "A set"
    where = f"on {found['dataset']}"
    if aim["kind"] == "adapt":
        where = f"from {aim['source']} to {found['dataset']}"
    what = f"{method} {where}, {found['ipc']} image(s) per class"
    hard, random_hard = (found["baselines"].get(name) for name in ("hard", "random_hard"))
    if hard:
        beside = f" (random real images {say(random_hard)})" if random_hard else ""
        against += f"; with hard labels {say(hard)}{beside}"
    if aim["kind"] == "attack":
        what += f", to have {aim['attack_name']} taken for {aim['target_name']}"
    return f"{what}: {', '.join(parts)}{against}. Report: {place / 'report.html'}"


def _attacked(found: dict[str, Any]) -> str:
    return f"{percent(found['success'])} taken so, others right {percent(found['others'])}"


def _before(found: dict[str, Any], say: Callable[[dict[str, Any]], str]) -> str:
    return f" [before the steps: {say(found['before'])}]" if found.get("before") else ""


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
        with guarded("data" if name == "whitening" else name, context.config, context.data):
            cost = estimate(context)
        total += cost.seconds
        memory, disk = (size(n) if n else "-" for n in (cost.temporaries, cost.disk))
        told = f"{name:10} {clock(cost.seconds):>14} {memory:>16} {disk:>10}  {cost.note}"
        print(told, flush=True)
        found[name] = {
            "seconds": cost.seconds,
            "temporaries_bytes": cost.temporaries,
            "disk_bytes": cost.disk,
        }
    print(f"in all {clock(total)}; {_held(context)}")
    return found


def _held(context: RunContext) -> str:
    """Say what memory the images take beside the temporaries, or what file in their place."""
    splits = [split.images for split in (context.data.train, context.data.test)]
    numbers = sum(math.prod(images.shape) for images in splits)
    matrices = f", the whitening {size(n)} in memory" if (n := whitening.held(context)) else ""
    if context.config.data.stream:
        return f"the images lie in a file of {size(numbers)}{matrices}"
    streamed = f" (or in a file of {size(numbers)}, with --config.data.stream=true)"
    return f"the data holds {size(4 * numbers)} beside the temporaries" + (
        (streamed if 4 * numbers > 8 << 30 else "") + matrices
    )
