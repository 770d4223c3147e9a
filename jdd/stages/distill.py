"""Stages ``distill`` and ``recover``: a method's outer loop, for every synthesis seed.

Both write distilled.npz; the stage is called ``recover`` if the images are recovered from squeezed
nets. A method that makes its set in parts runs the loop once per part. The images of a finished
part are stored in ``checkpoints/<stage>-parts``, and its checkpoints are deleted.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np

from jdd import config as configs
from jdd import methods, tasks
from jdd.config.files import stage_names
from jdd.errors import Diverged
from jdd.evaluation import rules
from jdd.evaluation.accuracy import BATCH
from jdd.evaluation.predict import outputs
from jdd.methods import initial_set
from jdd.methods.base import Method, Problem, State, full
from jdd.pretrained import patch_selection
from jdd.product import preview
from jdd.product.files import AnyProduct
from jdd.run import loop
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.schema.decoupled import Recover
from jdd.specs import rded
from jdd.stages import costs, evaluate, phases
from jdd.stages.base import Estimate, Stage, scaled, share, timed
from jdd.stages.registry import curve
from jdd.storage.files import write_atomic
from jdd.tasks.base import curve_point


def identity(context: RunContext) -> str:
    """Return the hash of every setting that changes the distilled set."""
    other = [] if context.source is context.data else [context.source.fingerprint]
    own = [phases.settings(context), context.data.fingerprint, context.config.steps]
    own += initial_set.identity(context.config)
    return fingerprint([*own, *other, *phases.identities(context)])


def _complete(
    context: RunContext, method: Method, state: State, steps: int, seed: int
) -> AnyProduct:
    """Return the method's set with the run's identity and its evaluation settings in the recipe."""
    found = method.distilled(state, steps)
    recipe = found.recipe | {
        "fingerprint": identity(context),
        "command": context.command,
        "seed": seed,
    }
    train = recipe["train"]
    if train["init"]["kind"] == "fixed":  # one fixed draw per synthesis run
        recipe["train"] = train | {"init": train["init"] | {"seed": seed}}
    if recipe.get("labels", {}).get("kind") == "stored":
        recipe["labels"] = recipe["labels"] | {"store": context.store_name(seed)}
    if context.config.eval.lr > 0:
        recipe["train"] = recipe["train"] | {"lr": context.config.eval.lr}
    return found.with_recipe(recipe)


def _save(context: RunContext, dset: AnyProduct, seed: int) -> None:
    dset.save(context.set_path(seed))
    preview.save(dset, context.set_path(seed).with_suffix(".png"))


def _observer(
    context: RunContext, method: Method, seed: int, session: Session
) -> Callable[[int, State], None]:
    """Return an observer that measures accuracy at ``eval.curve`` points before the last step."""
    config = context.config
    total, count = config.steps, config.eval.curve
    points = {round(total * i / count) for i in range(count)} if total else set()
    stage = curve(context.stage(seed))

    def observe(at: int, state: State) -> None:
        planned = session.temporaries.get(context.stage(seed))
        if planned and not context.recall("temporaries").get(context.stage(seed)):
            context.remember("temporaries", context.stage(seed), planned)
        if at not in points or session.metrics.has(stage, at):
            return
        dset = _complete(context, method, state, at, seed)
        held_out = context.data.val if context.data.val is not None else context.data.test
        found = evaluate.measure(
            context, dset, context.net, config.eval.curve_n, held_out, "curve", session
        )
        session.metrics.log(
            stage, at, **curve_point(tasks.of(dset.recipe), found), net=context.net.name
        )

    return observe


def _run(context: RunContext, session: Session) -> None:
    for seed in context.seeds:
        if _finished(context, seed):
            continue
        _forget_others(context, seed)
        problem = phases.problem(context, seed)
        method, steps = methods.make(context.config, problem), context.config.steps
        if parts := methods.parts(context.config, problem):
            state = _in_parts(context, problem, parts, seed, session)
        else:
            state = _at_once(context, method, problem, seed, session)
        _save(context, _complete(context, method, state, steps, seed), seed)


def _at_once(
    context: RunContext, method: Method, problem: Problem, seed: int, session: Session
) -> State:
    """Return the state after the outer loop. If it diverges, the last good set is saved."""
    stage = context.stage(seed)
    observe = _observer(context, method, seed, session)
    try:
        return loop.run(method, problem, seed, session, context.devices, stage, observe)
    except Diverged:
        last_good, steps = loop.last(method, seed, session, stage)
        _save(context, _complete(context, method, last_good, steps, seed), seed)
        raise


def _in_parts(
    context: RunContext, problem: Problem, parts: Sequence[Any], seed: int, session: Session
) -> State:
    """Return the state of the whole set; its parts are made sequentially."""
    stage = context.stage(seed)
    folder, images = context.workdir / "checkpoints" / f"{stage}-parts", []
    programs: dict[tuple[int, ...], loop.Programs] = {}
    session.metrics.start(stage)
    for part in parts:
        # Named by its content: with other parts, an image batch is made again.
        path = folder / f"{part.name}.npy"
        if not path.exists():
            method, own = methods.make(context.config, problem, part), f"{stage}-{path.stem}"
            if part.form not in programs:
                programs[part.form] = loop.make_step(method, seed, context.devices)
            step = programs[part.form]
            state = loop.run(method, problem, seed, session, context.devices, own, programs=step)
            if planned := session.temporaries.get(own):
                context.remember("temporaries", stage, planned)
            folder.mkdir(parents=True, exist_ok=True)
            made = np.asarray(state.variables["images"])
            write_atomic(path, partial(_save_array, made))
            shutil.rmtree(context.workdir / "checkpoints" / own, ignore_errors=True)
            last = session.metrics.last(own) or {}
            figures = {k: v for k, v in last.items() if k not in ("stage", "step", "seconds")}
            session.metrics.log(stage, part[-1].number + 1, **figures)
        images.append(np.load(path))
    for left in (context.workdir / "checkpoints").glob(f"{stage}-[0-9]*"):
        shutil.rmtree(left)  # parts of another partition: batches_at_once has changed
    return State({"images": np.concatenate(images)}, {})


def _forget_others(context: RunContext, seed: int) -> None:
    """Delete partial output of another set: of other data at the same path, or of other phases."""
    if context.maker == "recover":
        phases.forget_others(context, context.stage(seed), identity(context))
    elif before := phases.identities(context):
        own = fingerprint([phases.settings(context), context.data.fingerprint, before])
        phases.forget_others(context, context.stage(seed), own)


def _save_array(array: np.ndarray, file: BinaryIO) -> None:
    np.save(file, array)


def _finished(context: RunContext, seed: int) -> bool:
    if not context.set_path(seed).exists():
        return False
    recipe = context.load_set(seed).recipe
    return recipe["steps"] == context.config.steps and recipe["fingerprint"] == identity(context)


def update_training_settings(context: RunContext) -> None:
    """Update the training settings in finished sets whose recipe differs from the config.

    These settings do not affect the distilled images: ``baselines.full_epochs`` is resumable, and
    a set without a learning rate may be assigned one.
    """
    training = full(context.config)
    for seed in context.seeds:
        if not _finished(context, seed):
            continue
        dset = context.load_set(seed)
        new = rated(context, dset)
        if new is not dset or dset.recipe.get("full") != training:
            new.with_recipe(new.recipe | {"full": training}).save(context.set_path(seed))


def rated(context: RunContext, dset: AnyProduct) -> AnyProduct:
    """Return the set with the rate ``eval.lr``, if it has no rate and ``eval.lr`` is positive."""
    lr = context.config.eval.lr
    if not lr > 0 or rules.rate(dset) is not None:
        return dset
    return dset.with_recipe(dset.recipe | {"train": dset.recipe["train"] | {"lr": lr}})


def _estimate(context: RunContext) -> Estimate:
    """Time one outer step on freshly initialised weights, without experts."""
    problem = phases.blank(context)
    parts, batch, few = methods.parts(context.config, problem), 1, 1
    config, timing = context.config, parts
    if parts:
        batch = parts[0][0].size
        few = share(batch, context.data.shape, context.devices)
    if few < batch:  # smaller batches, the same number at a time
        config = configs.replace(config, {"image_batch": few, "class_images": 1})
        problem = problem._replace(config=config)
        timing = methods.parts(config, problem)
    method = methods.make(config, problem, *timing[:1])
    if method.objective is None:
        return _choice(context)
    seconds, temporaries = phases.step_cost(context, method, problem)
    step = seconds * batch / few
    rounds = max(1, len(parts))
    left = rounds * sum(
        context.config.steps for seed in context.seeds if not _finished(context, seed)
    )
    points = context.config.eval.curve * len(context.seeds)
    each = costs.cost(context, context.net, config.eval.curve_n).seconds if left else 0.0
    note = f"{left} steps of {step * 1e3:.0f} ms" + scaled(few, batch)
    note += f", {points} points of the accuracy curve"
    images = config.ipc * context.data.classes * len(context.seeds)
    disk = 4 * images * math.prod(context.data.shape)
    planned, begun = temporaries * batch // few, 0.0
    if context.maker == "recover" and cast(Recover, config).pix_init == "patch":
        found = _crops(context, patch_selection.MEDIUM.candidates, patch_selection.MEDIUM.crops)
        begun, note = found.seconds, f"{note}; at first {found.note}"
    return Estimate(begun + step * left + each * points, planned, note, disk)


def _choice(context: RunContext) -> Estimate:
    """Time a batch of real images through the net whose features select them."""
    if context.maker == "recover":
        config = cast(rded.Config, context.config)
        found = _crops(context, config.candidates, config.crops)
        return found._replace(note=f"{found.note}; no steps")
    if "experts" not in stage_names(context.config):
        return Estimate(0.0, 0, "images are drawn")
    images, net, untrained = context.data.train.images, context.net, context.blank.experts
    assert untrained is not None
    variables = untrained.read(0, 0)
    seconds = timed(lambda: outputs(net, variables, images[:BATCH]).features)
    left = any(not _finished(context, seed) for seed in context.seeds)
    note = f"features of {len(images)} images, {seconds * 1e3:.0f} ms for {BATCH}; no steps"
    return Estimate(left * seconds * -(-len(images) // BATCH), 0, note)


def _crops(context: RunContext, candidates: int, each: int) -> Estimate:
    """Time a batch of real crops through the teacher that selects among them."""
    teacher, train = context.blank.teachers[0], context.data.train
    variables, images = teacher.variables(), train.images[np.arange(min(BATCH, len(train.labels)))]
    seconds = timed(lambda: outputs(teacher.frozen, variables, images).logits)
    crops = each * min(candidates, len(train.labels) // context.data.classes) * context.data.classes
    seeds = sum(not _finished(context, seed) for seed in context.seeds)
    note = f"{crops} crops, {seconds * 1e3:.0f} ms for {BATCH}"
    return Estimate(seeds * seconds * -(-crops // BATCH), 0, note)


def _stage(name: str) -> Stage:
    return Stage(
        name=name,
        fingerprint=identity,
        run=_run,
        estimate=_estimate,
        done=lambda context: all(_finished(context, seed) for seed in context.seeds),
        logged=lambda context: [context.stage(seed) for seed in context.seeds],
    )


STAGE = _stage("distill")
RECOVER = _stage("recover")
