"""Stage ``distill``: the method's outer loop, for every synthesis seed; writes distilled.npz."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp

from jdd import loop, methods, picture
from jdd.configfile import stage_names
from jdd.distilled import DistilledSet
from jdd.errors import Diverged
from jdd.evaluation import aims
from jdd.evaluation.accuracy import BATCH
from jdd.evaluation.outputs import outputs
from jdd.methods.base import Method, State, full
from jdd.session import Session
from jdd.stages import evaluate
from jdd.stages.base import Estimate, Stage, timed
from jdd.work import Work, fingerprint


def identity(work: Work) -> str:
    """Return the hash of every setting that changes the distilled set."""
    from jdd import config

    flat = config.flat(work.config)
    free = {name for name, key in config.schema(work.config.method).items() if key.resumable}
    apart = ("eval.", "baselines.", "experts.dir", "data.path", "data.source")
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
    stage = loop.curve(f"distill{work.suffix(seed)}")

    def observe(at: int, state: State) -> None:
        planned = session.temporaries.get(f"distill{work.suffix(seed)}")
        if planned and not work.recall("temporaries").get(f"distill{work.suffix(seed)}"):
            work.remember("temporaries", f"distill{work.suffix(seed)}", planned)
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
    method = methods.make(work.config, problem)
    for seed in work.seeds:
        if _finished(work, seed):
            continue
        stage = f"distill{work.suffix(seed)}"
        observe = _observer(work, method, seed, session)
        try:
            state = loop.run(method, problem, seed, session, work.devices, stage, observe)
        except Diverged:
            kept, steps = loop.last(method, seed, session, stage)
            _save(work, _complete(work, method, kept, steps, seed), seed)
            raise
        dset = _complete(work, method, state, int(work.config.steps), seed)
        _save(work, dset, seed)


def _finished(work: Work, seed: int) -> bool:
    if not work.set_path(seed).exists():
        return False
    recipe = work.load_set(seed).recipe
    return recipe["steps"] == int(work.config.steps) and recipe["fingerprint"] == identity(work)


def retell(work: Work) -> None:
    """Rewrite how the whole training set is trained in finished sets that say it otherwise.

    It is no part of what is distilled: ``baselines.full_epochs`` may change when a run goes on.
    """
    told = full(work.config)
    for seed in work.seeds:
        if not _finished(work, seed):
            continue
        dset = work.load_set(seed)
        if dset.recipe.get("full") != told:
            dset._replace(recipe=dset.recipe | {"full": told}).save(work.set_path(seed))


def _estimate(work: Work) -> Estimate:
    """Time one outer step on freshly initialised weights: no expert is needed."""
    problem = work.blank
    method = methods.make(work.config, problem)
    if method.objective is None:
        return _choice(work)
    carry = loop.start(method, work.seeds[0])
    batch = problem.gather(method.sample(0, 0))
    gradient, update = loop.make_step(method, work.seeds[0], work.devices)
    alive = jnp.asarray(True)
    step = timed(lambda: update(carry, gradient(carry, batch), alive)[0], 2)
    left = sum(int(work.config.steps) for seed in work.seeds if not _finished(work, seed))
    points = int(work.config.eval.curve) * len(work.seeds)
    curve = evaluate.cost(work, work.net, int(work.config.eval.curve_n)).seconds if left else 0.0
    note = f"{left} steps of {step * 1e3:.0f} ms, {points} points of the accuracy curve"
    return Estimate(step * left + curve * points, gradient.temporaries, note)


def _choice(work: Work) -> Estimate:
    """Time a batch of the real images through the net whose features they are chosen by."""
    if "experts" not in stage_names(work.config):
        return Estimate(0.0, 0, "images are drawn")
    images, net = work.data.train.images, work.net
    variables = work.blank.experts.read(0, 0)
    seconds = timed(lambda: outputs(net, variables, images[:BATCH]).features)
    left = any(not _finished(work, seed) for seed in work.seeds)
    note = f"features of {len(images)} images, {seconds * 1e3:.0f} ms for {BATCH}; no steps"
    return Estimate(left * seconds * -(-len(images) // BATCH), 0, note)


STAGE = Stage(
    name="distill",
    inputs=("experts",),
    fingerprint=identity,
    run=_run,
    estimate=_estimate,
    done=lambda work: all(_finished(work, seed) for seed in work.seeds),
)
