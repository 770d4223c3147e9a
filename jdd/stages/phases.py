"""Method-specific stages: the generic stage behind every ``registry.Phase``.

A phase runs for every synthesis seed, or once for all (``Phase.shared``), before the set is made,
in the order of the method's ``STAGES``. Its finished state is stored in
``checkpoints/NAME[-sSEED]``, the nets of a training in ``NAME/``; ``checkpoints/phases.json``
records the identities of finished phases. Later phases and the method itself read the state from
``Problem.phases``.

If an earlier phase, the data or a key that a phase reads has changed, the phase restarts from the
beginning; if only its number of steps has grown, or a resumable key of a training, it resumes from
its newest checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd import config as configs
from jdd.errors import BadInput
from jdd.methods.base import Method, Problem, State
from jdd.nets import Net
from jdd.parallel import threads
from jdd.pretrained import train
from jdd.pretrained.store import Store
from jdd.run import loop
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session
from jdd.stages import contents, samples
from jdd.stages.base import ENOUGH, Estimate, Stage, pace, scaled, timed
from jdd.stages.experts import training_cost
from jdd.stages.registry import APART, Phase
from jdd.storage import checkpoints
from jdd.training.recipe import Recipe

_BEGUN = ".begun"  # in checkpoints: the data of each stage without an identity


class Training(NamedTuple):
    """A net that a phase trains on the real images.

    Attributes:
      recipe: the training recipe.
      lr: the learning rate; with ``recipe.rates`` one for every step.
      epochs: passes over the training images.
      seed: the seed of its weights and batches.
      group: the number of nets trained at once, each from its own initial weights.
    """

    net: Net
    recipe: Recipe
    lr: float | Sequence[float]
    epochs: int
    seed: int = 0
    group: int = 1


def settings(context: RunContext) -> dict[str, Any]:
    """Return the values of all keys that a set's images depend on, except the steps.

    A path that counts by its content (``Key.content``) is replaced by the content's digest.
    """
    flat, schema = configs.flat(context.config), context.config.spec.keys
    free = {name for name, key in schema.items() if key.resumable}
    free |= {name for name, key in schema.items() if key.later and flat[name] == key.default}
    flat |= {name: contents.digest(context, name) for name in contents.given(context)}
    return {k: v for k, v in flat.items() if k not in free and not k.startswith(APART)}


def earlier(context: RunContext, phase: Phase) -> tuple[Phase, ...]:
    """Return the phases that run before ``phase``."""
    every = configs.phases(context.config)
    return every[: [other.name for other in every].index(phase.name)]


def identity(context: RunContext, phase: Phase) -> str:
    """Return the hash of every setting that changes a phase's output."""
    return fingerprint(
        [_basis(context, phase), _steps(context, phase), *_resumable(context, phase)]
    )


def identities(context: RunContext) -> list[str]:
    """Return the identities of all phases behind a set; [] for a method without phases."""
    return [identity(context, phase) for phase in configs.phases(context.config)]


def _basis(context: RunContext, phase: Phase) -> str:
    """Return the hash of everything a phase's output depends on, except its number of steps."""
    before = earlier(context, phase)
    later = configs.phases(context.config)[len(before) + 1 :]
    foreign = {key for other in later for key in other.keys} | {*context.config.spec.after_phases}
    groups = tuple(key for key in foreign if key.endswith("."))
    values = {
        name: value
        for name, value in settings(context).items()
        if name not in foreign and not name.startswith(groups)
    }
    sources = dict.fromkeys((context.data.fingerprint, context.source.fingerprint))
    inputs = [identity(context, other) for other in before]
    return fingerprint([phase.name, phase.kind, values, list(sources), inputs])


def _resumable(context: RunContext, phase: Phase) -> list[dict[str, Any]]:
    """Return the values of the resumable ``Phase.keys`` of a phase that has no steps; [] if none.

    They are in its identity, not in its basis: a training with another number of epochs goes on.
    """
    if phase.kind == "method":
        return []
    values, schema = configs.flat(context.config), context.config.spec.keys
    prefixes = tuple(key for key in phase.keys if key.endswith("."))
    own = {
        name: values[name]
        for name, key in schema.items()
        if key.resumable and (name in phase.keys or name.startswith(prefixes))
    }
    return [own] if own else []


def _steps(context: RunContext, phase: Phase) -> int:
    if phase.kind != "method":
        return 0
    values = configs.flat(context.config)
    if phase.steps not in values:
        found = f"steps={phase.steps!r}, which is no key of method {context.config.method}"
        raise BadInput(f"phase {phase.name}", found, "a key of the method that counts its steps")
    return int(values[phase.steps])


def _name(context: RunContext, phase: Phase, seed: int) -> str:
    """Return the name of a seed's phase in metrics and checkpoints."""
    once = phase.shared or phase.kind == "training"
    return phase.name + ("" if once else context.suffix(seed))


def _names(context: RunContext, phase: Phase) -> list[str]:
    return list(dict.fromkeys(_name(context, phase, seed) for seed in context.seeds))


def _folder(context: RunContext, name: str) -> Path:
    return context.workdir / "checkpoints" / name


def _finished(context: RunContext, phase: Phase, seed: int) -> bool:
    name = _name(context, phase, seed)
    directory = _folder(context, name) if phase.kind != "training" else context.workdir / name
    return directory.is_dir() and context.recall("phases").get(name) == identity(context, phase)


def done(context: RunContext, phase: Phase) -> bool:
    """Return whether a phase is finished for every seed."""
    return all(_finished(context, phase, seed) for seed in context.seeds)


def problem(context: RunContext, seed: int, before: Phase | None = None) -> Problem:
    """Return the run's problem with the outputs of the phases before ``before``, or of all phases.

    Raises:
      BadInput: a checkpoint cannot be read.
    """
    every = configs.phases(context.config)
    return _filled(context, context.problem, every if before is None else earlier(context, before),
                   seed, blank=False)  # fmt: skip


def blank(context: RunContext, before: Phase | None = None) -> Problem:
    """Return ``context.blank`` with states of the right shapes for unfinished phases."""
    every = configs.phases(context.config)
    phases = every if before is None else earlier(context, before)
    return _filled(context, context.blank, phases, context.seeds[0], blank=True)


def _filled(
    context: RunContext, problem: Problem, phases: Sequence[Phase], seed: int, blank: bool
) -> Problem:
    for phase in phases:
        begun = blank and not _finished(context, phase, seed)
        output = _blank if begun else _output
        made = {phase.name: output(context, phase, problem, seed)}
        problem = problem._replace(phases={**problem.phases, **made})
    return problem


def _made(context: RunContext, phase: Phase, problem: Problem) -> Any:
    return context.config.spec.find(phase.make)(context.config, problem)


def _output(context: RunContext, phase: Phase, problem: Problem, seed: int) -> State:
    """Return the stored output of a finished phase."""
    if phase.kind == "training":
        training = _made(context, phase, problem)
        store = _store(context, phase, training)
        return _stored(State(store.read_group(0, store.epochs(0)), {}))
    folder = _folder(context, _name(context, phase, seed))
    remedy = f"delete {folder}, and the same command makes it again"
    path = folder / str(checkpoints.latest(folder)) / "default"
    found = checkpoints.read(path, context.config.verify_files, remedy)["state"]
    return State(found.get("variables", {}), found.get("aux", {}))


def _blank(context: RunContext, phase: Phase, problem: Problem, seed: int) -> State:
    if phase.blank is not None:
        return _stored(context.config.spec.find(phase.blank)(context.config, problem))
    made = _made(context, phase, problem)
    if phase.kind == "training":
        one = jax.eval_shape(made.net.init, jax.random.key(0))
        zeros = jax.tree.map(lambda x: np.zeros((made.group, *x.shape), x.dtype), one)
        return _stored(State(zeros, {}))
    return _stored(made.init(seed) if phase.kind == "method" else made(seed))


def _stored(state: State) -> State:
    """Return a state in its stored form: nested dicts of NumPy arrays."""
    return State(*(checkpoints.nested(part) for part in state))


def _store(context: RunContext, phase: Phase, training: Training) -> Store:
    like = jax.eval_shape(training.net.init, jax.random.key(0))
    made = {"phase": phase.name, "basis": _basis(context, phase), "group": training.group}
    place, verify = context.workdir / phase.name, context.config.verify_files
    return Store(place, made, like, verify=verify)


def _run(context: RunContext, session: Session, phase: Phase) -> None:
    for seed in context.seeds:
        if _finished(context, phase, seed):
            continue
        name = _name(context, phase, seed)
        _forget_others(context, phase, name)
        given = problem(context, seed, phase)
        made = _made(context, phase, given)
        if phase.kind == "training":
            _train(context, session, phase, made)
        elif phase.kind == "construction":
            _construct(context, session, name, made, seed)
        else:
            steps = _steps(context, phase)
            observe = samples.observer(context, session, name, made, seed, steps)
            loop.run(made, given, seed, session, context.devices, name, observe, steps=steps)
            if planned := session.temporaries.get(name):
                context.remember("temporaries", name, planned)
        context.remember("phases", name, identity(context, phase))


def _construct(context: RunContext, session: Session, name: str, made: Any, seed: int) -> None:
    session.metrics.start(name)
    state = made(seed)
    shutil.rmtree(_folder(context, name), ignore_errors=True)  # made by other resumable keys
    steps = checkpoints.Steps(_folder(context, name))
    steps.save(0, loop.Carry(State(*state), {}, jnp.zeros((), jnp.int32)))
    steps.close()
    session.metrics.log(name, 0)
    session.metrics.stop(name)


def _train(context: RunContext, session: Session, phase: Phase, training: Training) -> None:
    store = _store(context, phase, training)
    if (trained := store.epochs(0)) > training.epochs:
        found = f"epochs {training.epochs}, and {trained} are done"
        raise BadInput(f"phase {phase.name}", found, f"{trained} or more, or a new --workdir")
    train.train(
        store, training.net, training.recipe, training.lr, context.data,
        1, training.epochs, training.seed, session, context.devices,
        stage=phase.name, keep_all=False, named="",
    )  # fmt: skip
    session.metrics.stop(phase.name)


def _forget_others(context: RunContext, phase: Phase, name: str) -> None:
    """Delete output of another phase of this name, such as one of other data at the same path."""
    forget_others(context, name, _basis(context, phase), (context.workdir / phase.name,))


def begin(context: RunContext, name: str) -> None:
    """Record the real images and weights that the checkpoints of ``name`` are made from."""
    context.remember(_BEGUN, name, _sources(context))


def began_otherwise(context: RunContext, name: str) -> bool:
    """Return whether there are checkpoints of ``name`` from other real images or weights."""
    sources = _sources(context)
    other = context.recall(_BEGUN).get(name, sources) != sources
    return other and _folder(context, name).is_dir()


def _sources(context: RunContext) -> list[str | None]:
    return [context.data.fingerprint, context.weights_digest]


def forget_others(context: RunContext, name: str, own: str, folders: Sequence[Path] = ()) -> None:
    """Delete checkpoints of ``name``, its parts and ``folders`` if their identity is not ``own``.

    ``checkpoints/identity.json`` records the identity last begun under each name.
    """
    if context.recall("identity").get(name, own) != own:
        found = [*(context.workdir / "checkpoints").glob(f"{name}*"), *folders]
        for left in found:
            if left.is_dir() and left.name.removeprefix(name)[:1] in ("", "-"):
                shutil.rmtree(left)
    context.remember("identity", name, own)


def step_cost(context: RunContext, method: Method, given: Problem) -> tuple[float, int, str]:
    """Time one outer step of a method on its fresh state; on a CPU with as many items as cores.

    Returns:
      Seconds, the bytes XLA plans for temporaries, and in words how many items were timed.
    """
    seed, indices, devices = context.seeds[0], method.sample(0, 0), context.devices
    count = few = loop.item_count(indices)
    if len(devices) == 1 and devices[0].platform == "cpu":  # items run as many at a time as cores
        few = threads(count)
        indices = {
            name: value if name == "shared" else jax.tree.map(lambda x: x[:few], value)
            for name, value in indices.items()
        }
    carry, items = loop.start(method, seed), given.gather(indices)
    gradient, update = loop.make_step(method, seed, devices)
    alive = jnp.asarray(True)
    seconds = timed(lambda: gradient(carry, items), 2)
    if seconds < ENOUGH:  # else the update would only take time to compile
        seconds = timed(lambda: update(carry, gradient(carry, items), alive)[0], 2)
    return seconds * count / few, gradient.temporaries, scaled(few, count, "items")


def _estimate(context: RunContext, phase: Phase) -> Estimate:
    left = sum(not _finished(context, phase, seed) for seed in context.seeds)
    left = min(left, 1) if phase.shared else left
    if phase.kind == "construction" or not left:
        return Estimate(0.0, 0, "computed once, not timed" if left else "finished")
    given = blank(context, phase)
    made = _made(context, phase, given)
    if phase.kind == "training":
        return training_cost(
            made.net, made.recipe, context.data, made.group, made.epochs, 1, context.devices
        )
    seconds, temporaries, of = step_cost(context, made, given)
    seed, each = context.seeds[0], _steps(context, phase)
    seen = samples.estimate(context, _name(context, phase, seed), made, seed, each, left)
    note = f"{left * each} steps of {pace(seconds)}{of}{seen.note}"
    whole = seconds * left * each + seen.seconds
    return Estimate(whole, max(temporaries, seen.temporaries), note)


def stage_of(phases: Sequence[Phase], phase: Phase) -> Stage:
    """Return the stage that runs ``phase``, one of a method's ordered phases."""
    names = [other.name for other in phases]
    before = names[: names.index(phase.name)]
    return Stage(
        name=phase.name,
        fingerprint=partial(identity, phase=phase),
        run=partial(_run, phase=phase),
        estimate=partial(_estimate, phase=phase),
        done=partial(done, phase=phase),
        logged=partial(_names, phase=phase),
        inputs=(*phase.inputs, *before),
    )


def lines(context: RunContext) -> list[str]:
    """Return the names of all phases' lines in the metrics."""
    every = configs.phases(context.config)
    return [name for phase in every for name in _names(context, phase)]


def begun(context: RunContext) -> list[tuple[str, Path, int]]:
    """Return (key of the steps, checkpoints, requested steps) of every phase that has steps."""
    return [
        (phase.steps, _folder(context, name), _steps(context, phase))
        for phase in configs.phases(context.config)
        if phase.kind == "method"
        for name in _names(context, phase)
    ]
