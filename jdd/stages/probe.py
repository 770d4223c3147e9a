"""Stage ``probe``: the images' rate by a few steps at several rates, where none is published.

Every candidate, f times the rate of the nearest row, takes the same first K steps of the method
from its own start: the same images, rows, snapshots and keys. Then it is judged by

    L(f) = mean over j = 1 .. J of the method's loss at step T + j, from the aux of seed s + j

with its images after K steps: steps that no run of T steps takes, the same for all candidates, on
training data alone. Out are candidates whose loss or variables became infinite, that the method
refused, or most of whose pixels are further from [0, 1] than ``FAR``. Of the others the smallest L
is taken, or the rate nearest to the row's whose L is as good: within a part ``MARGIN`` of what the
best one has gained over the start, or ``NOISE`` of L at the start. All gradients together are at
most a tenth of the run's steps.

The outer optimisers of these methods are SGD with momentum, whose moves are proportional to the
rate: one compiled step serves all candidates.
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
from jdd.config.probing import JUDGED, Plan, plan
from jdd.methods import latents
from jdd.methods.base import Method, Problem, State, all_finite
from jdd.run import loop
from jdd.run.context import RunContext, fingerprint
from jdd.run.session import Session, clock
from jdd.stages import distill_estimate, phases
from jdd.stages.base import Estimate, Stage, pace
from jdd.stages.far_images import far

MARGIN, NOISE = 0.1, 0.02  # of what the best has gained, and of L at the start: no difference
FAR = 1.0  # distance from [0, 1], in units of that range
_FILE = "probe"  # checkpoints/probe.json


class Tried(NamedTuple):
    """A candidate: its factor, L, and why it is out ('': it is not)."""

    factor: float
    loss: float
    out: str = ""


def choose(tried: Sequence[Tried], start: float) -> float:
    """Return the chosen factor: see the module; 1 if all are out.

    Args:
      start: L of the images of step 0.
    """
    left = [one for one in tried if not one.out]
    if not left:
        return min(one.factor for one in tried)
    best = min(one.loss for one in left)
    most = best + max(MARGIN * (start - best), NOISE * abs(start))
    near = [one.factor for one in left if one.loss <= most]
    return min(near, key=lambda factor: (abs(math.log10(factor)), factor))


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
    return tuple(
        name for name in probing.probed(context.config, context.config.steps) if name not in given
    )


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

    def run(self, factor: float, steps: int) -> tuple[State, str]:
        """Return the state after ``steps`` steps, and why the candidate is out; '' if it is not."""
        carry = loop.start(self._method, self._seed)
        for at in range(steps):
            batch = self._problem.gather(self._method.sample(self._seed, at))
            carry, ok = self._update(carry, self._gradient(carry, batch), jnp.float32(factor))
            if not bool(ok):
                return carry.state, f"diverged at step {at + 1}"
        images = np.asarray(carry.state.variables["images"])
        out = far(images, self._problem.data.transform, FAR)
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


def _run(context: RunContext, session: Session) -> None:
    config, (name, *_) = context.config, context.probing
    seed, found = context.seeds[0], plan(config.steps)
    if found is None:  # resumed with fewer steps
        context.remember(_FILE, "chosen", {})
        return
    row = float(configs.flat(config)[name])
    problem = phases.problem(context, seed)
    probe = _Prober(methods.make(config, problem), problem, seed, context.devices)
    listed = ", ".join(f"{factor * row:.3g}" for factor in sorted(found.factors))
    session.say(f"probe: {name} of {listed}: {found.calls} of the {config.steps} steps' gradients")
    session.metrics.start(STAGE.name)
    session.metrics.truncate(STAGE.name, 0)
    first = methods.make(config, problem).init(seed)
    start = probe.judge(first, config.steps)
    begun = time.perf_counter()
    tried = []
    for number, factor in enumerate(found.factors):
        session.check()
        state, out = probe.run(factor, found.steps)
        loss = math.inf if out else probe.judge(state, config.steps)
        out = out or ("" if math.isfinite(loss) else "the loss is not finite")
        tried.append(Tried(factor, loss, out))
        figures = {} if out else {"loss": loss}
        session.metrics.log(STAGE.name, number + 1, rate=factor * row, **figures)
    each = (time.perf_counter() - begun) / (found.calls - JUDGED)
    _record(context, name, row, start, tried, found)
    session.say(_sentence(name, row, start, tried))
    left = clock(each * config.steps * len(context.seeds))
    session.say(f"probe: a step takes {pace(each)}: {context.maker} about {left}")


def _record(
    context: RunContext, name: str, row: float, start: float, tried: Sequence[Tried], of: Plan
) -> None:
    rate = float(f"{row * choose(tried, start):.3g}")
    found = {
        "row": {name: row},
        "start": start,
        "steps": of.steps,
        "tried": [
            {name: one.factor * row} | ({"out": one.out} if one.out else {"loss": one.loss})
            for one in tried
        ],
        "chosen": {name: rate},
    }
    for key, value in found.items():  # the choice last: with it the stage is complete
        context.remember(_FILE, key, value)


def _sentence(name: str, row: float, start: float, tried: Sequence[Tried]) -> str:
    rate = row * choose(tried, start)
    words = "; ".join(
        f"{one.factor * row:.3g}: {one.out or f'loss {one.loss:.4g}'}"
        for one in sorted(tried, key=lambda one: one.factor)
    )
    own = "the row's" if rate == row else f"not the row's {row:.3g}"
    return f"probe: {name}={rate:.3g} ({own}); at the start loss {start:.4g}; {words}"


def _estimate(context: RunContext) -> Estimate:
    found = plan(context.config.steps)
    if found is None or _done(context):
        return Estimate(0.0, 0, "finished")
    whole = distill_estimate.estimate(context, context.seeds[:1])
    seconds = whole.seconds * found.calls / context.config.steps
    note = f"{found.calls} gradients at {len(found.factors)} rates of {', '.join(context.probing)}"
    return Estimate(seconds, whole.temporaries, note)


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
