"""Stages ``distill`` and ``recover``: a method's outer loop, for every synthesis seed.

Both write distilled.npz; the stage is called ``recover`` if the images are recovered from squeezed
nets. A method that makes its set in parts runs the loop once per part (``in_parts.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jdd import config as configs
from jdd import methods, tasks
from jdd.errors import BadInput, Interrupted
from jdd.evaluation import rules
from jdd.methods import initial_set, latents
from jdd.methods.base import Method, Problem, State, full
from jdd.product import preview
from jdd.product.files import AnyProduct
from jdd.run import loop
from jdd.run.context import RunContext, fingerprint, stored_set
from jdd.run.divergence import StepDiverged
from jdd.run.session import Session
from jdd.run.team import Team
from jdd.stages import (
    distill_estimate,
    evaluate,
    in_parts,
    phases,
    plateau,
    probe,
    samples,
    shared_steps,
    steps_back,
)
from jdd.stages.base import Stage
from jdd.stages.registry import curve
from jdd.tasks.base import curve_point

# checkpoints/init_set.json: the digest of the set that the run's images began as.
_INIT_SET = "init_set"


def identity(context: RunContext) -> str:
    """Return the hash of every setting that changes the distilled set.

    ``init_set`` counts by the content that the run began with, whatever lies there now.
    """
    other = [] if context.source is context.data else [context.source.fingerprint]
    own = [phases.settings(context), context.data.fingerprint, context.config.steps]
    if initial_set.given(context.config):
        own.append(context.recall(_INIT_SET).get("digest") or initial_set.digest(context.config))
    if context.weights_digest:
        own.append(context.weights_digest)
    return fingerprint([*own, *other, *phases.identities(context)])


def validate_begun(context: RunContext) -> None:
    """Refuse to go on with images that began with other real images or another ``init_set``.

    A finished run does not need its ``init_set`` or ``latent.prior`` any more.

    Raises:
      BadInput: as ``initial_set.read`` and ``latents.read``; or the data or the set have changed
        since the run began.
    """
    config = context.config
    _validate_same_data(context)
    if latents.given(config) and _unfinished(context):
        latents.read(config, context.data)
    if not initial_set.given(config):
        return
    begun = context.recall(_INIT_SET).get("digest")
    if begun and not _unfinished(context):
        return
    initial_set.read(config, context.data)
    if begun and initial_set.digest(config) != begun:
        where = f"{initial_set.WHERE}={initial_set.given(config)}"
        found = "not the set that this run began with: it has changed since"
        raise BadInput(where, found, "that set again, or another --workdir")


def _validate_same_data(context: RunContext) -> None:
    """Refuse data or weights other than those of the sets and checkpoints in the directory.

    What is recovered, or made in phases, is made anew from other data (``_forget_others``).
    """
    if context.maker == "recover" or configs.phases(context.config):
        return
    those = "those images again, or another --workdir"
    places = [at for seed in context.seeds for at in _saved(context, seed) if at.exists()]
    for path in places:
        recipe = stored_set(path).recipe
        made_from, weights = recipe.get("data_fingerprint"), recipe.get("weights_digest")
        if weights not in (None, context.weights_digest):
            found = f"other weights than those that {path} was made with"
            raise BadInput("config.towers.weights", found, "those weights, or another --workdir")
        if made_from not in (None, "", context.data.fingerprint):
            found = f"other real images than those that {path} was made from"
            raise BadInput("config.data", found, those)
    for name in map(context.stage, context.seeds):
        if phases.began_otherwise(context, name):
            found = f"other real images or weights than {name} began with"
            raise BadInput("config.data", found, those)


def _saved(context: RunContext, seed: int) -> tuple[Path, Path]:
    return context.set_path(seed), context.unfinished_path(seed)


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
    if probed := probe.chosen(context):
        recipe["probe"] = probed
    if back := steps_back.recorded(context, seed):
        recipe["steps_back"] = back
    if context.config.eval.lr > 0:
        recipe["train"] = recipe["train"] | {"lr": context.config.eval.lr}
    return found.with_recipe(recipe)


def _save(context: RunContext, dset: AnyProduct, seed: int, session: Session) -> None:
    preview.save(dset, context.set_path(seed).with_suffix(".png"))
    for suffix in (".npz", ".png"):
        context.unfinished_path(seed).with_suffix(suffix).unlink(missing_ok=True)
    dset.save(context.set_path(seed))  # last: with it the stage is complete
    if words := preview.unnamed(dset):
        session.say(f"{context.set_path(seed).stem}.png: {words}")
    if wrong := dset.recipe.get("wrong_labels"):
        count, of = wrong["count"], wrong["of"]
        session.say(f"{count} of {of} labels of the chosen images are wrong ({count / of:.0%})")


_SHARE = 50  # saving unfinished sets takes at most one part in so many of a run's time


class _Unfinished:
    """Saves a seed's set while it is being made, as ``unfinished.npz`` and ``unfinished.png``."""

    def __init__(self, context: RunContext, method: Method, seed: int):
        self._context, self._method, self._seed = context, method, seed
        self._due = 0.0

    def at_checkpoint(self, steps: int, state: State) -> None:
        """Save the set of a checkpoint's step, unless the last one was saved just before."""
        config = self._context.config
        if 0 < steps < config.steps and steps % config.checkpoint_every == 0:
            self._in_time(lambda: self.save(state, steps))

    def after_part(self, images: Sequence[np.ndarray]) -> None:
        """Save the images of the finished parts; those that are not made are 0."""
        config, data = self._context.config, self._context.data
        left = config.ipc * data.classes - sum(map(len, images))
        none = np.zeros((left, *data.shape), np.float32)
        state = State({"images": np.concatenate([*images, none])}, {})
        self._in_time(lambda: self.save(state, config.steps))

    def _in_time(self, save: Callable[[], None]) -> None:
        begun = time.perf_counter()
        if begun >= self._due:
            save()
            now = time.perf_counter()
            self._due = now + _SHARE * (now - begun)

    def save(self, state: State, steps: int) -> None:
        """Save the set of ``state``, after ``steps`` steps."""
        dset = _complete(self._context, self._method, state, steps, self._seed)
        path = self._context.unfinished_path(self._seed)
        dset.save(path)
        preview.save(dset, path.with_suffix(".png"))


def _observer(
    context: RunContext, method: Method, seed: int, session: Session
) -> Callable[[int, State], None]:
    """Return an observer that measures accuracy at ``eval.curve`` points before the last step."""
    config = context.config
    total, count = config.steps, config.eval.curve
    points = {round(total * i / count) for i in range(count)} if total else set()
    stage, unfinished = curve(context.stage(seed)), _Unfinished(context, method, seed)
    seen = samples.observer(context, session, context.stage(seed), method, seed, total)

    def observe(at: int, state: State) -> None:
        if seen is not None:
            seen(at, state)
        unfinished.at_checkpoint(at, state)
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
    if (first := initial_set.digest(context.config)) and not context.recall(_INIT_SET):
        context.remember(_INIT_SET, "digest", first)
    team = shared_steps.team(context, session)
    if team.several and not session.first:
        shared_steps.follow(context, session, team)
        return
    for number, seed in enumerate(context.seeds):
        if (team.several or session.mine(number)) and not _finished(context, seed):
            with session.alone():
                _make(context, seed, session, team)
    team.end()


def _make(context: RunContext, seed: int, session: Session, team: Team) -> None:
    """Make a seed's set."""
    _forget_others(context, seed)
    problem = shared_steps.problem(context, seed, team)
    method, steps = methods.make(context.config, problem), context.config.steps
    if words := latents.sentence(context.config, context.data):
        session.say(words)
    ended: dict[str, Any] = {}
    if parts := methods.parts(context.config, problem):
        unfinished = _Unfinished(context, method, seed)
        state = in_parts.made(context, problem, parts, seed, session, team, unfinished.after_part)
    else:
        state, ended = _at_once(context, problem, seed, session, team)
    dset = _complete(context, method, state, ended.get("step", steps), seed)
    if ended:
        dset = dset.with_recipe(dset.recipe | {"stopped": ended})
    _save(context, dset, seed, session)


def _at_once(
    context: RunContext, problem: Problem, seed: int, session: Session, team: Team
) -> tuple[State, dict[str, Any]]:
    """Return the state after the outer loop, and why that ended early; {} if it did not.

    If it diverges, it steps back where that is allowed; where it is not, the last good set is
    saved. If it is interrupted, the set of that step is saved as an unfinished one.
    """
    stage, path = context.stage(seed), context.set_path(seed)
    back = steps_back.StepsBack(context, seed, session) if steps_back.acts(context) else None
    while True:
        own = steps_back.at_rates_in_force(problem, back)
        method = methods.make(own.config, own)
        observe = _observer(context, method, seed, session)
        milestones = None if back is None else back.milestones()
        stop = plateau.Rule(context, seed, session)
        lead = team.lead(session, {"seed": seed, "rates": {} if back is None else back.rates})
        try:
            state = loop.run(
                method, own, seed, session, team.devices, stage, observe,
                saved_set=path, milestones=milestones, stop=stop, lead=lead,
            )  # fmt: skip
            return state, stop.ended
        except StepDiverged as error:
            if back is not None and back.take(error):
                continue
            last = back.last_good(method, error) if back is not None else None
            last_good, steps = last or loop.last(method, own.config, seed, session, stage)
            found = _complete(context, method, last_good, steps, seed)
            row = session.metrics.last(stage) or {}
            record = {"step": row.get("step"), "cause": row.get("diverged")}
            _save(context, found.with_recipe(found.recipe | {"diverged": record}), seed, session)
            raise (error if back is None else back.ended(error)) from None
        except Interrupted:
            state, steps = loop.last(method, own.config, seed, session, stage)
            if steps:
                _Unfinished(context, method, seed).save(state, steps)
            raise


def _forget_others(context: RunContext, seed: int) -> None:
    """Delete partial output of another set: of other data at the same path, or of other phases."""
    if context.maker == "recover":
        phases.forget_others(context, context.stage(seed), identity(context))
    elif before := phases.identities(context):
        own = fingerprint([phases.settings(context), context.data.fingerprint, before])
        phases.forget_others(context, context.stage(seed), own)
    else:
        phases.begin(context, context.stage(seed))


def _finished(context: RunContext, seed: int) -> bool:
    if not context.set_path(seed).exists():
        return False
    recipe = context.load_set(seed).recipe
    complete = recipe["steps"] == context.config.steps or "stopped" in recipe
    return complete and recipe["fingerprint"] == identity(context)


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


def _unfinished(context: RunContext) -> list[int]:
    """Return the seeds whose sets are not finished."""
    return [seed for seed in context.seeds if not _finished(context, seed)]


def _stage(name: str) -> Stage:
    return Stage(
        name=name,
        fingerprint=identity,
        run=_run,
        estimate=lambda context: distill_estimate.estimate(context, _unfinished(context)),
        done=lambda context: not _unfinished(context),
        logged=lambda context: [context.stage(seed) for seed in context.seeds],
    )


STAGE = _stage("distill")
RECOVER = _stage("recover")
