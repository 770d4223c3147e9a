"""Stage ``probe``: rates by a few steps at several of them, where none is published.

It chooses the images' rate and, of methods that match trajectories, the rate at which their
students start, each from f times the rate of the nearest row. Every candidate is judged by

    L(f) = mean over j = 1 .. J of the method's loss at step T + j, from the aux of seed s + j:

steps that no run of T steps takes, the same for all candidates, on training data alone.

1. The students' rate: L of the images of step 0, trained on at each rate. Trajectory matching
   states in units of the expert's own way how far students get, so that losses at several rates
   compare. The rate is learned from there, in steps that are small compared with a factor of 10.
2. The images' rate, at the chosen rate of the students: every candidate takes the same first K
   steps of the method from its own start: the same images, rows, snapshots and keys. Then its
   images are judged.

Out are candidates whose loss or variables became infinite, that the method refused, or most of
whose pixels are further from [0, 1] than ``FAR``. Of the others the smallest L is taken, or the
rate nearest to the row's whose L is as good: within a part ``MARGIN`` of what the best one has
gained over the start, or ``NOISE`` of L at the start. Of the students' rates the start is that of
the row's. All gradients together are at most a tenth of the run's steps.

The outer optimisers of these methods are SGD with momentum, whose moves are proportional to the
rate, and the students' rate is a variable of the state: one compiled step serves all candidates.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import config as configs
from jdd import methods, rng
from jdd.config import probing
from jdd.config.probing import JUDGED, STUDENT, Plan, plan
from jdd.data.transform import MOST
from jdd.methods import latents
from jdd.methods.base import Method, Problem, State, all_finite
from jdd.run import loop
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, clock
from jdd.stages import distill_estimate, phases
from jdd.stages.base import Estimate, Stage, pace

MARGIN, NOISE = 0.1, 0.02  # of what the best has gained, and of L at the start: no difference
FAR = 1.0  # distance from [0, 1], in units of that range
_FILE = "probe"  # checkpoints/probe.json


class Tried(NamedTuple):
    """A candidate: its factor, L, and why it is out ('': it is not)."""

    factor: float
    loss: float
    out: str = ""


def choose(tried: Sequence[Tried], start: float) -> float:
    """Return the chosen factor: see the module; of rates that are all out, the smallest.

    Args:
      start: L of the images of step 0.
    """
    left = [one for one in tried if not one.out]
    if not left:
        return min(one.factor for one in tried)
    best = min(one.loss for one in left)
    gain = max(MARGIN * (start - best), NOISE * abs(start)) if math.isfinite(start) else 0.0
    most = best + gain
    near = [one.factor for one in left if one.loss <= most]
    return min(near, key=lambda factor: (abs(math.log10(factor)), factor))


class Choice(NamedTuple):
    """A probed rate: its key, the row's rate, the candidates, and L at the start."""

    name: str
    row: float
    tried: tuple[Tried, ...]
    start: float

    @property
    def factor(self) -> float:
        """The chosen factor of the row's rate."""
        return choose(self.tried, self.start)

    @property
    def rate(self) -> float:
        """The chosen rate, of three digits."""
        return float(f"{self.row * self.factor:.3g}")

    def __str__(self) -> str:
        words = "; ".join(
            f"{one.factor * self.row:.3g}: {one.out or f'loss {one.loss:.4g}'}"
            for one in sorted(self.tried, key=lambda one: one.factor)
        )
        own = "the row's" if self.factor == 1 else f"not the row's {self.row:.3g}"
        return f"{self.name}={self.rate:.3g} ({own}); at the start loss {self.start:.4g}; {words}"


def keys(context: RunContext, given: Collection[str], fitted: bool, begun: bool) -> tuple[str, ...]:
    """Return the keys whose rates a run probes; () if it does not.

    Args:
      given: keys that keep their values.
      fitted: the settings are those of the nearest row.
      begun: the run is in its directory already, and does what it began with.
    """
    if begun and context.config.probe and not latents.given(context.config):
        return tuple(context.recall(_FILE).get("keys", ()))
    if not fitted:
        return ()
    return probing.probed(context.config, context.config.steps, given)


def applied(context: RunContext) -> RunContext:
    """Return the context with the chosen rates, once they are."""
    chosen = context.recall(_FILE).get("chosen", {}) if context.probing else {}
    flat = configs.flat(context.config)
    if all(flat[name] == value for name, value in chosen.items()):
        return context
    return context.with_config(configs.replace(context.config, chosen))


def begin(context: RunContext) -> None:
    """Record that the run probes, before its config is written."""
    if context.probing and not context.recall(_FILE):
        context.remember(_FILE, "keys", list(context.probing))


def chosen(context: RunContext) -> dict[str, Any]:
    """Return what the probe found, for result.json and the recipe; {} without a probe."""
    found = context.recall(_FILE) if context.probing else {}
    return {
        name: found[name] for name in ("chosen", "row", "start", "tried", "steps") if name in found
    }


class _Prober:
    """The compiled step of a method, at any factor of its images' rate."""

    def __init__(self, method: Method, problem: Problem, seed: int, devices: Sequence[jax.Device]):
        self._method, self._problem, self._seed = method, problem, seed
        self._gradient, _ = loop.make_step(method, seed, devices)
        self._update = jax.jit(self._moved)

    def _moved(self, carry: loop.Carry, result: Any, factor: jax.Array) -> tuple[loop.Carry, Any]:
        """Return the carry after a step at ``factor`` times the rate, and whether it is valid."""
        (loss, (aux, _)), grads = result
        method, old = self._method, carry.state
        outer = optax.with_extra_args_support(method.optimizer)
        moves, optimizer = outer.update(grads, carry.optimizer, old.variables, value=loss)
        moves = {name: move * (factor if name == "images" else 1) for name, move in moves.items()}
        state = State(optax.apply_updates(old.variables, moves), old.aux | aux)
        state = method.advance(state, rng.key(self._seed, "advance", carry.step))
        accepted = method.accept(loss)
        ok = jnp.isfinite(loss) & (method.valid(state) | ~accepted) & all_finite(state.variables)
        new = loop.Carry(state, optimizer, carry.step + 1)
        kept = carry._replace(step=carry.step + 1)
        return jax.tree.map(lambda a, b: jnp.where(accepted, a, b), new, kept), ok

    def start(self, student: float = 1.0) -> loop.Carry:
        """Return the carry of step 0, with ``student`` times the students' rate."""
        carry = loop.start(self._method, self._seed)
        if student == 1:
            return carry
        variables = carry.state.variables
        changed = variables | {"lr": variables["lr"] * jnp.float32(student)}
        return carry._replace(state=carry.state._replace(variables=changed))

    def run(self, factor: float, steps: int, student: float = 1.0) -> tuple[State, str]:
        """Return the state after ``steps`` steps, and why the candidate is out; '' if it is not."""
        carry = self.start(student)
        for at in range(steps):
            batch = self._problem.gather(self._method.sample(self._seed, at))
            carry, ok = self._update(carry, self._gradient(carry, batch), jnp.float32(factor))
            if not bool(ok):
                return carry.state, f"diverged at step {at + 1}"
        images = np.asarray(carry.state.variables["images"])
        out = self._problem.data.transform.beyond(images, FAR) > MOST
        return carry.state, "most pixels are far from any image" if out else ""

    def judge(self, state: State, total: int) -> float:
        """Return L of a state."""
        losses = []
        for j in range(1, JUDGED + 1):
            fresh = self._method.init(self._seed + j)
            own = State(state.variables, fresh.aux)
            carry = loop.start(self._method, self._seed)._replace(
                state=own, step=jnp.asarray(total + j, jnp.int32)
            )
            batch = self._problem.gather(self._method.sample(self._seed, total + j))
            losses.append(float(self._gradient(carry, batch)[0][0]))
        return float(np.mean(losses))


class _Trials:
    """The candidates of one run's probe, each judged, logged and remembered in its order."""

    def __init__(self, context: RunContext, session: Session, found: Plan):
        seed, problem = context.seeds[0], phases.problem(context, context.seeds[0])
        method = methods.make(context.config, problem)
        self._probe = _Prober(method, problem, seed, context.devices)
        self._session, self._plan, self._total = session, found, context.config.steps
        self._values, self._logged = configs.flat(context.config), 0

    def begin(self) -> float:
        """Return L at the start of the run as it is; it compiles the gradient."""
        return self._probe.judge(self._probe.start().state, self._total)

    def students(self, start: float) -> Choice:
        """Return the choice of the students' rate, at the images of step 0."""
        found = []
        for factor in self._plan.students:
            state = self._probe.start(factor).state
            loss = start if factor == 1 else self._probe.judge(state, self._total)
            found.append(self._tried(STUDENT, factor, loss, ""))
        return Choice(STUDENT, float(self._values[STUDENT]), tuple(found), start)

    def images(self, name: str, start: float, student: float) -> Choice:
        """Return the choice of the images' rate, at ``student`` times the students' rate."""
        found = []
        for factor in self._plan.factors:
            state, out = self._probe.run(factor, self._plan.steps, student)
            loss = math.inf if out else self._probe.judge(state, self._total)
            found.append(self._tried(name, factor, loss, out))
        return Choice(name, float(self._values[name]), tuple(found), start)

    def _tried(self, name: str, factor: float, loss: float, out: str) -> Tried:
        self._session.check()
        out = out or ("" if math.isfinite(loss) else "the loss is not finite")
        figures = {} if out else {"loss": loss}
        self._logged += 1
        rate = factor * self._values[name]
        self._session.metrics.log(STAGE.name, self._logged, key=name, rate=rate, **figures)
        return Tried(factor, loss, out)


def _run(context: RunContext, session: Session) -> None:
    config, names = context.config, context.probing
    found = plan(config.steps, names)
    if found is None:  # resumed with fewer steps
        context.remember(_FILE, "chosen", {})
        return
    trials, values = _Trials(context, session, found), configs.flat(config)
    listed = " and ".join(_listed(found, name, values[name]) for name in names)
    session.say(f"probe: {listed}: {found.calls} of the {config.steps} steps' gradients")
    session.metrics.start(STAGE.name)
    session.metrics.truncate(STAGE.name, 0)
    start = trials.begin()
    begun, choices, student = time.perf_counter(), list[Choice](), 1.0
    if STUDENT in names:
        choices.append(trials.students(start))
        student = choices[-1].factor
        start = next(one.loss for one in choices[-1].tried if one.factor == student)
    for name in names:
        if name != STUDENT:
            choices.append(trials.images(name, start, student))
    each = (time.perf_counter() - begun) / max(1, found.calls - JUDGED)
    _record(context, choices, found)
    for choice in choices:
        session.say(f"probe: {choice}")
    left = clock(each * config.steps * len(context.seeds))
    session.say(f"probe: a step takes {pace(each)}: {context.maker} about {left}")


def _listed(found: Plan, name: str, row: float) -> str:
    factors = found.students if name == STUDENT else found.factors
    return f"{name} of " + ", ".join(f"{factor * row:.3g}" for factor in sorted(factors))


def _record(context: RunContext, choices: Sequence[Choice], of: Plan) -> None:
    found = {
        "row": {one.name: one.row for one in choices},
        "start": choices[0].start if math.isfinite(choices[0].start) else None,
        "steps": of.steps,
        "tried": [
            {one.name: each.factor * one.row}
            | ({"out": each.out} if each.out else {"loss": each.loss})
            for one in choices
            for each in one.tried
        ],
        "chosen": {one.name: one.rate for one in choices},
    }
    for key, value in found.items():  # the choice last: with it the stage is complete
        context.remember(_FILE, key, value)


def _estimate(context: RunContext) -> Estimate:
    found = plan(context.config.steps, context.probing)
    if found is None or _done(context):
        return Estimate(0.0, 0, "finished")
    whole = distill_estimate.estimate(context, context.seeds[:1])
    seconds = whole.seconds * found.calls / context.config.steps
    rates = " and ".join(
        f"{len(found.students if name == STUDENT else found.factors)} of {name}"
        for name in context.probing
    )
    return Estimate(seconds, whole.temporaries, f"{found.calls} gradients: rates, {rates}")


def _done(context: RunContext) -> bool:
    return not context.probing or "chosen" in context.recall(_FILE)


STAGE = Stage(
    name="probe",
    fingerprint=lambda context: fingerprint([context.probing, context.recall(_FILE).get("chosen")]),
    run=_run,
    estimate=_estimate,
    done=_done,
    on=lambda context: bool(context.probing),
)
