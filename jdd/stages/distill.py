"""Stages ``distill`` and ``recover``: a method's outer loop, for every synthesis seed.

Either writes distilled.npz; ``recover`` is what it is called where the images come out of squeezed
nets. A method that makes its set in parts goes through the loop part by part; a finished part's
images lie in ``checkpoints/<stage>-parts``, and its own checkpoints are gone.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from jdd import config as configs
from jdd import loop, methods, picture
from jdd.configfile import stage_names
from jdd.distilled import DistilledSet
from jdd.errors import Diverged
from jdd.evaluation import aims, rules
from jdd.evaluation.accuracy import BATCH
from jdd.evaluation.outputs import outputs
from jdd.experts import realism
from jdd.files import write_atomic
from jdd.methods.base import Method, State, full
from jdd.session import Session
from jdd.stages import evaluate, students
from jdd.stages.base import Estimate, Stage, scaled, share, timed
from jdd.work import Work, fingerprint


def identity(work: Work) -> str:
    """Return the hash of every setting that changes the distilled set."""
    flat = configs.flat(work.config)
    schema = configs.schema(work.config.method)
    free = {name for name, key in schema.items() if key.resumable}
    free |= {name for name, key in schema.items() if key.later and flat[name] == key.default}
    apart = (
        *("eval.", "baselines.", "experts.dir", "data.path", "data.source", "squeeze.dir"),
        *("relabel.", "post."),  # what happens to the images later
    )
    kept = {k: v for k, v in flat.items() if k not in free and not k.startswith(apart)}
    other = [] if work.source is work.data else [work.source.fingerprint]
    return fingerprint([kept, work.data.fingerprint, int(work.config.steps), *other])


def _complete(work: Work, method: Method, state: State, steps: int, seed: int) -> DistilledSet:
    """Return the method's set with the run's identity and its way of evaluation in the recipe."""
    found = method.distilled(state, steps)
    recipe = found.recipe | {"fingerprint": identity(work), "command": work.command, "seed": seed}
    train = recipe["train"]
    if train["init"]["kind"] == "fixed":  # each synthesis run has its own
        recipe["train"] = train | {"init": train["init"] | {"seed": seed}}
    if recipe.get("labels", {}).get("kind") == "stored":
        recipe["labels"] = recipe["labels"] | {"store": work.store_name(seed)}
    if float(work.config.eval.lr) > 0:
        recipe["train"] = recipe["train"] | {"lr": float(work.config.eval.lr)}
    return found._replace(recipe=recipe)


def _save(work: Work, dset: DistilledSet, seed: int) -> None:
    dset.save(work.set_path(seed))
    picture.save(dset, work.set_path(seed).with_suffix(".png"))


def _observer(
    work: Work, method: Method, seed: int, session: Session
) -> Callable[[int, State], None]:
    """Return what measures the accuracy curve at ``eval.curve`` points before the last step."""
    config = work.config
    total, count = int(config.steps), int(config.eval.curve)
    points = {round(total * i / count) for i in range(count)} if total else set()
    stage = loop.curve(work.stage(seed))

    def observe(at: int, state: State) -> None:
        planned = session.temporaries.get(work.stage(seed))
        if planned and not work.recall("temporaries").get(work.stage(seed)):
            work.remember("temporaries", work.stage(seed), planned)
        if at not in points or session.metrics.has(stage, at):
            return
        dset = _complete(work, method, state, at, seed)
        held_out = work.data.val if work.data.val is not None else work.data.test
        found = evaluate.measure(
            work, dset, work.net, int(config.eval.curve_n), held_out, "curve", session
        )
        session.metrics.log(stage, at, **aims.curve_point(found), net=work.net.name)

    return observe


def _run(work: Work, session: Session) -> None:
    problem = work.problem
    method, parts = methods.make(work.config, problem), methods.parts(work.config, problem)
    for seed in work.seeds:
        if _finished(work, seed):
            continue
        if work.maker == "recover":
            _forget_others(work, seed)
        if parts:
            state = _in_parts(work, parts, seed, session)
            _save(work, _complete(work, method, state, int(work.config.steps), seed), seed)
            continue
        stage = work.stage(seed)
        observe = _observer(work, method, seed, session)
        try:
            state = loop.run(method, problem, seed, session, work.devices, stage, observe)
        except Diverged:
            kept, steps = loop.last(method, seed, session, stage)
            _save(work, _complete(work, method, kept, steps, seed), seed)
            raise
        dset = _complete(work, method, state, int(work.config.steps), seed)
        _save(work, dset, seed)


def _in_parts(work: Work, parts: Sequence[Any], seed: int, session: Session) -> State:
    """Return the state of the whole set, whose parts are made one after another."""
    problem, stage = work.problem, work.stage(seed)
    folder, images = work.workdir / "checkpoints" / f"{stage}-parts", []
    programs: dict[tuple[int, ...], loop.Programs] = {}
    session.metrics.start(stage)
    for part in parts:
        # Named by what it holds: with other parts, an image batch is made again.
        path = folder / f"{part.name}.npy"
        if not path.exists():
            method, own = methods.make(work.config, problem, part), f"{stage}-{path.stem}"
            if part.form not in programs:
                programs[part.form] = loop.make_step(method, seed, work.devices)
            step = programs[part.form]
            state = loop.run(method, problem, seed, session, work.devices, own, programs=step)
            if planned := session.temporaries.get(own):
                work.remember("temporaries", stage, planned)
            folder.mkdir(parents=True, exist_ok=True)
            made = np.asarray(state.variables["images"])
            write_atomic(path, partial(_save_array, made))
            shutil.rmtree(work.workdir / "checkpoints" / own, ignore_errors=True)
            last = session.metrics.last(own) or {}
            told = {k: v for k, v in last.items() if k not in ("stage", "step", "seconds")}
            session.metrics.log(stage, part[-1].number + 1, **told)
        images.append(np.load(path))
    for left in (work.workdir / "checkpoints").glob(f"{stage}-[0-9]*"):
        shutil.rmtree(left)  # of parts that were cut otherwise: another batches_at_once
    return State({"images": np.concatenate(images)}, {})


def _forget_others(work: Work, seed: int) -> None:
    """Delete what a recovery left that was not this one: other data under the same path, say."""
    stage, own = work.stage(seed), identity(work)
    if work.recall("identity").get(stage, own) != own:
        for left in (work.workdir / "checkpoints").glob(f"{stage}*"):
            if left.is_dir() and (left.name == stage or left.name[len(stage) :][:1] == "-"):
                shutil.rmtree(left)
    work.remember("identity", stage, own)


def _save_array(array: np.ndarray, file: BinaryIO) -> None:
    np.save(file, array)


def _finished(work: Work, seed: int) -> bool:
    if not work.set_path(seed).exists():
        return False
    recipe = work.load_set(seed).recipe
    return recipe["steps"] == int(work.config.steps) and recipe["fingerprint"] == identity(work)


def retell(work: Work) -> None:
    """Rewrite how nets are trained in finished sets that say it otherwise than the config.

    It is no part of what is distilled: ``baselines.full_epochs`` may change when a run goes on, and
    a set without a rate be given one.
    """
    told = full(work.config)
    for seed in work.seeds:
        if not _finished(work, seed):
            continue
        dset = work.load_set(seed)
        new = rated(work, dset)
        if new is not dset or dset.recipe.get("full") != told:
            new._replace(recipe=new.recipe | {"full": told}).save(work.set_path(seed))


def rated(work: Work, dset: DistilledSet) -> DistilledSet:
    """Return a set that has no rate to be trained at with ``eval.lr``, if that is one."""
    lr = float(work.config.eval.lr)
    if not lr > 0 or rules.rate(dset) is not None:
        return dset
    return dset._replace(recipe=dset.recipe | {"train": dset.recipe["train"] | {"lr": lr}})


def _estimate(work: Work) -> Estimate:
    """Time one outer step on freshly initialised weights: no expert is needed."""
    problem = work.blank
    parts, batch, few = methods.parts(work.config, problem), 1, 1
    config, timing = work.config, parts
    if parts:
        batch = parts[0][0].size
        few = share(batch, work.data.shape, work.devices)
    if few < batch:  # batches of fewer images, as many at a time
        config = configs.replace(config, {"image_batch": few, "class_images": 1})
        problem = problem._replace(config=config)
        timing = methods.parts(config, problem)
    method = methods.make(config, problem, *timing[:1])
    if method.objective is None:
        return _choice(work)
    carry = loop.start(method, work.seeds[0])
    items = problem.gather(method.sample(0, 0))
    gradient, update = loop.make_step(method, work.seeds[0], work.devices)
    alive = jnp.asarray(True)
    step = timed(lambda: update(carry, gradient(carry, items), alive)[0], 2) * batch / few
    rounds = max(1, len(parts))
    left = rounds * sum(int(work.config.steps) for seed in work.seeds if not _finished(work, seed))
    points = int(work.config.eval.curve) * len(work.seeds)
    curve = students.cost(work, work.net, int(work.config.eval.curve_n)).seconds if left else 0.0
    note = f"{left} steps of {step * 1e3:.0f} ms" + scaled(few, batch)
    note += f", {points} points of the accuracy curve"
    images = int(config.ipc) * work.data.classes * len(work.seeds)
    disk = 4 * images * math.prod(work.data.shape)
    planned, begun = gradient.temporaries * batch // few, 0.0
    if work.maker == "recover" and work.config.pix_init == "patch":
        found = _crops(work, realism.MEDIUM.candidates, realism.MEDIUM.crops)
        begun, note = found.seconds, f"{note}; at first {found.note}"
    return Estimate(begun + step * left + curve * points, planned, note, disk)


def _choice(work: Work) -> Estimate:
    """Time a batch of the real images through the net whose features they are chosen by."""
    if work.maker == "recover":
        found = _crops(work, int(work.config.candidates), int(work.config.crops))
        return found._replace(note=f"{found.note}; no steps")
    if "experts" not in stage_names(work.config):
        return Estimate(0.0, 0, "images are drawn")
    images, net = work.data.train.images, work.net
    variables = work.blank.experts.read(0, 0)
    seconds = timed(lambda: outputs(net, variables, images[:BATCH]).features)
    left = any(not _finished(work, seed) for seed in work.seeds)
    note = f"features of {len(images)} images, {seconds * 1e3:.0f} ms for {BATCH}; no steps"
    return Estimate(left * seconds * -(-len(images) // BATCH), 0, note)


def _crops(work: Work, candidates: int, each: int) -> Estimate:
    """Time a batch of real crops through the teacher that chooses among them."""
    teacher, train = work.blank.teachers[0], work.data.train
    variables, images = teacher.variables(), train.images[np.arange(min(BATCH, len(train.labels)))]
    seconds = timed(lambda: outputs(teacher.still, variables, images).logits)
    crops = each * min(candidates, len(train.labels) // work.data.classes) * work.data.classes
    seeds = sum(not _finished(work, seed) for seed in work.seeds)
    note = f"{crops} crops, {seconds * 1e3:.0f} ms for {BATCH}"
    return Estimate(seeds * seconds * -(-crops // BATCH), 0, note)


def _stage(name: str, inputs: tuple[str, ...]) -> Stage:
    return Stage(
        name=name,
        inputs=inputs,
        fingerprint=identity,
        run=_run,
        estimate=_estimate,
        done=lambda work: all(_finished(work, seed) for seed in work.seeds),
    )


STAGE = _stage("distill", ("experts",))
RECOVER = _stage("recover", ("squeeze",))
