"""The outer loop: runs any method, with checkpoints, metrics, divergence and interruption.

What resume guarantees. A run that is stopped at any moment and started again by the same command
ends with the same bits as one that was never stopped, on the same machine with the same number of
devices, free memory and versions of jdd and JAX. This holds because

  1. a checkpoint contains the complete state: the method's variables and its ``aux``, the outer
     optimiser's state, and the number of steps done;
  2. all randomness of step k is a function of the seed and k: rows, snapshots and keys are drawn
     from these, and no random generator is stateful;
  3. the loop resumes from the newest complete checkpoint in ``checkpoints/STAGE``, or from
     ``init(seed)`` if there is none. Checkpoints are written atomically;
  4. lines of ``metrics.jsonl`` for steps after the checkpoint are deleted and written again.

A signal (Ctrl-C, SIGTERM) or divergence saves a checkpoint first, so no step is repeated. After a
crash or a kill, the steps since the last multiple of ``checkpoint_every`` are repeated, or since
the last save by ``checkpoint_minutes``. Only the keys that the config marks as resumable may change
between two starts, ``steps`` among them: a run of 100 steps extended to 200 equals a run of 200
from the beginning. Other changes are refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import parallel, rng
from jdd.errors import BadInput
from jdd.methods.base import Method, Problem, State, all_finite
from jdd.run import divergence
from jdd.run.metrics import stage_of_part
from jdd.run.milestones import Milestones
from jdd.run.session import Progress, Session
from jdd.schema.common import Common
from jdd.stages.registry import curve
from jdd.storage import checkpoints

Tree = Any


class Carry(NamedTuple):
    """Content of a checkpoint: the method's state, the outer optimiser's state, the step count."""

    state: State
    optimizer: Tree
    step: jax.Array


def start(method: Method, seed: int) -> Carry:
    """Return the initial carry, of step 0."""
    state = method.init(seed)
    return Carry(state, method.optimizer.init(state.variables), jnp.zeros((), jnp.int32))


def item_count(batch: dict[str, Any]) -> int:
    """Return the number of items of a step.

    Args:
      batch: the step's indices (``Method.sample``), or the arrays they select.
    """
    return int(jax.tree.leaves(_per_item(batch))[0].shape[0])


def _per_item(batch: dict[str, Any]) -> dict[str, Any]:
    """Return the entries that the objective is given an item of; all have items on axis 0."""
    return {name: value for name, value in batch.items() if name not in ("shared", "keys")}


class Gradient:
    """``f(carry, batch) -> ((loss, (aux, metrics)), gradient)``, with the step's own keys.

    Of a method with ``decode``, the gradient with respect to the images is pulled back to latents.
    """

    def __init__(self, method: Method, seed: int, devices: Sequence[jax.Device]):
        if method.objective is None:
            raise BadInput("config.steps", "steps of a method that has none", "0")
        self._mean = parallel.MeanGradient(method.objective, devices, method.simple, method.merged)
        self._prepare = jax.jit(method.prepare) if method.prepare else None
        self._key = rng.stream(seed, "objective")
        self._constants = jax.tree.map(jnp.asarray, method.constants)
        self._decode, self._pulled = _decoder(method)

    def __call__(self, carry: Carry, batch: Tree) -> Tree:
        items = _per_item(batch)
        folded = np.asarray(batch.get("keys", np.arange(item_count(batch))))
        keys = _fold(self._key, carry.step, folded)
        aux = carry.state.aux | self._constants | batch.get("shared", {})
        learned = carry.state.variables
        variables = self._decode(learned)
        if self._prepare is None:
            found, grads = self._mean(variables, aux, items, keys)
            return found, self._pulled(learned, grads)
        prepared = self._prepare(aux)
        (loss, (new, metrics)), grads = self._mean(variables, aux | prepared, items, keys)
        return (loss, (prepared | new, metrics)), self._pulled(learned, grads)

    @property
    def temporaries(self) -> int:
        """What XLA plans for the compiled step, in bytes; 0 before the first call."""
        return self._mean.temporaries

    @property
    def programs(self) -> int:
        """The number of compiled programs: one for each size of a round of items."""
        return self._mean.programs


def _decoder(method: Method) -> tuple[Callable[[Tree], Tree], Callable[[Tree, Tree], Tree]]:
    """Return ``decode`` of a method and ``(variables, g) -> J^T g``, J its derivative."""
    if (decode := method.decode) is None:
        return lambda variables: variables, lambda variables, grads: grads

    def pulled(variables: Tree, grads: Tree) -> Tree:
        return jax.vjp(decode, variables)[1](grads)[0]

    return jax.jit(decode), jax.jit(pulled)


Programs = tuple[Gradient, Callable[..., Tree]]


def make_step(method: Method, seed: int, devices: Sequence[jax.Device]) -> Programs:
    """Return ``gradient(carry, batch)`` and ``update(carry, result, alive)``, both compiled.

    ``update`` adopts the new state only if it is valid and the loss is finite. Otherwise the old
    carry is final: the ``ok`` among the returned metrics is the next ``alive``. A step whose loss
    the method does not accept changes only the step count.
    """

    @jax.jit
    def update(carry: Carry, result: Tree, alive: jax.Array) -> tuple[Carry, dict[str, jax.Array]]:
        (loss, (aux, metrics)), grads = result
        outer = optax.with_extra_args_support(method.optimizer)  # a schedule may follow the loss
        moves, optimizer = outer.update(grads, carry.optimizer, carry.state.variables, value=loss)
        state = State(optax.apply_updates(carry.state.variables, moves), carry.state.aux | aux)
        state = method.advance(state, rng.key(seed, "advance", carry.step))
        accepted = method.accept(loss)
        ok = alive & jnp.isfinite(loss) & (method.valid(state) | ~accepted)
        state, optimizer = jax.tree.map(
            lambda new, old: jnp.where(ok & accepted, new, old),
            (state, optimizer),
            (carry.state, carry.optimizer),
        )
        new_carry = Carry(state, optimizer, carry.step + ok)
        norms = {f"grad_{k}": optax.global_norm(g) for k, g in grads.items()}
        return new_carry, {"loss": loss, **metrics, **norms, "ok": ok}

    return Gradient(method, seed, devices), update


@jax.jit
def _fold(stream: jax.Array, step: jax.Array, items: jax.Array) -> jax.Array:
    """Return the keys of a step's items."""
    key = jax.random.fold_in(stream, step)
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(items)


def last(
    method: Method, config: Common, seed: int, session: Session, stage: str
) -> tuple[State, int]:
    """Return the newest checkpointed state of a stage and its step."""
    steps = checkpoints.Steps(session.workdir / "checkpoints" / stage)
    found = steps.newest(start(method, seed), config.verify_files, session.warn)
    steps.close()
    if found is None:
        raise FileNotFoundError(f"no checkpoint in {steps.directory}")
    return found[1].state, int(found[1].step)


def run(
    method: Method,
    problem: Problem,
    seed: int,
    session: Session,
    devices: Sequence[jax.Device],
    stage: str = "distill",
    observe: Callable[[int, State], None] | None = None,
    programs: Programs | None = None,
    steps: int | None = None,
    saved_set: Path | None = None,
    milestones: Milestones | None = None,
    stop: Callable[[int], bool] | None = None,
    lead: Callable[[int, Tree, Carry], None] | None = None,
) -> State:
    """Run the outer steps of ``method`` and return the last state. Resumable, see above.

    Args:
      stage: the name in metrics and checkpoints.
      observe: called with (step, state) at every step of interest, before that step runs, and
        once at the end; it must not change the state.
      programs: the result of ``make_step`` for a method that differs only in ``init`` and
        ``sample``: compiled once for both.
      steps: the number of steps; None: ``config.steps``.
      saved_set: where the caller saves the last good set if the run diverges, for the message.
      milestones: checked and saved on the way; without a checkpoint the loop starts from their
        base.
      stop: called with every step after ``observe``; True ends the loop before that step runs.
      lead: called with a step, its indices and the carry before its gradient is computed.

    Raises:
      StepDiverged: the loss or a variable left the valid range, or a milestone is of no use; the
        last good state is checkpointed.
      Interrupted: a signal arrived; the state is checkpointed.
    """
    config, metrics = problem.config, session.metrics
    saved = checkpoints.Steps(session.workdir / "checkpoints" / stage, config.keep)
    total = config.steps if steps is None else steps
    metrics.start(stage)  # methods without steps spend their time here
    carry = start(method, seed)
    found = saved.newest(carry, config.verify_files, session.warn)
    if found is not None:
        carry = jax.tree.map(jnp.asarray, found[1])
    elif milestones is not None and milestones.base:
        carry = jax.tree.map(jnp.asarray, milestones.restore(milestones.base, carry))
        saved.save(milestones.base, carry)  # not to be resumed with fewer steps
    at = int(carry.step)
    metrics.truncate(stage, at)
    metrics.truncate(curve(stage), at)
    if at < total:
        gradient, update = programs or make_step(method, seed, devices)

        def result(step: int, carry: Carry) -> Tree:
            indices = method.sample(seed, step)
            if lead is not None:
                lead(step, indices, carry)
            return gradient(carry, problem.gather(indices))

        watch = _Watch(method, problem, seed, stage, session, result, saved_set)
        compiling = ", compiling ..." if not gradient.programs else ""
        session.say(f"{stage}: step {at} of {total}{compiling}")
    bar = session.bar(total, stage, start=at)
    recent: dict[str, jax.Array] = {}
    due = _Due(60 * config.checkpoint_minutes)
    alive = jnp.asarray(True)
    try:
        while at < total:
            if milestones is not None and milestones.due(at):
                if recent:
                    watch.ensure(recent, carry)
                _pass(milestones, at, carry, config, stage, session, saved_set)
            if observe is not None:
                observe(at, carry.state)
            if stop is not None and stop(at):
                break
            if session.stopping:
                raise session.interrupted(f"at step {at}")
            session.profile.step(stage_of_part(stage))
            carry, recent = update(carry, result(at, carry), recent.get("ok", alive))
            session.temporaries[stage] = gradient.temporaries
            at += 1
            if at % config.log_every == 0 or at == total:
                watch.ensure(recent, carry)
                _log(session, stage, at, recent, bar)
            if at % config.checkpoint_every == 0 or due.now():
                watch.ensure(recent, carry)
                saved.save(at, carry)
                due.saved()
        if recent:
            watch.ensure(recent, carry)
        if milestones is not None and milestones.due(at):
            _pass(milestones, at, carry, config, stage, session, saved_set)
        if not total:
            metrics.log(stage, 0)
        if observe is not None:
            observe(at, carry.state)
    finally:
        try:
            # The carry is the last good one, however the loop ended. If memory ran out, reading it
            # raises that error again; earlier checkpoints remain valid.
            saved.save(int(carry.step), carry)
        finally:
            saved.close()
            bar.close()
            metrics.stop(stage)
    return carry.state


class _Due:
    """Tells when a checkpoint is due by time; never of 0 seconds."""

    def __init__(self, seconds: float):
        self._seconds, self._last = seconds, time.monotonic()

    def now(self) -> bool:
        return 0 < self._seconds <= time.monotonic() - self._last

    def saved(self) -> None:
        self._last = time.monotonic()


class _Watch(NamedTuple):
    """What a stage needs to name the cause of a divergence."""

    method: Method
    problem: Problem
    seed: int
    stage: str
    session: Session
    result: Callable[[int, Carry], Tree]
    saved_set: Path | None

    def ensure(self, recent: dict[str, jax.Array], carry: Carry) -> None:
        """Log a refused step and raise; ``carry`` is the one before it.

        Raises:
          StepDiverged: naming the step, the quantity that went bad and the keys to change.
        """
        if bool(recent["ok"]):
            return
        config, step = self.problem.config, int(carry.step)
        # Steps since then have changed nothing: the refused one is computed again.
        result = self.result(step, carry)
        (loss, (_, measured)), _ = result
        found = divergence.cause(self.method, config, self.seed, carry, result)
        scalars = {name: float(value) for name, value in {"loss": loss, **measured}.items()}
        self.session.metrics.log(self.stage, step + 1, **scalars, diverged=found.what)
        workdir, saved = self.session.workdir, self.saved_set
        line = divergence.message(config, workdir, self.stage, step, found, saved)
        grads = result[1]
        first = not step and not bool(jnp.isfinite(loss) & all_finite(grads))
        raise divergence.StepDiverged(line, step + 1, found, first)


def _pass(
    milestones: Milestones,
    at: int,
    carry: Carry,
    config: Common,
    stage: str,
    session: Session,
    saved_set: Path | None,
) -> None:
    """Check the state of a milestone, and save it.

    Raises:
      StepDiverged: the state is finite and of no use.
    """
    found = milestones.fault(carry.state)
    if found is None:
        milestones.save(at, carry)
        return
    session.metrics.truncate(stage, at - 1)  # a step has one line: this one states the fault
    session.metrics.log(stage, at, diverged=found.what)
    good = milestones.before(at - 1)
    line = divergence.message(config, session.workdir, stage, at - 1, found, saved_set, good)
    raise divergence.StepDiverged(line, at, found, good=good)


def _log(
    session: Session, stage: str, at: int, recent: dict[str, jax.Array], bar: Progress
) -> None:
    scalars = {name: float(value) for name, value in recent.items() if name != "ok"}
    session.metrics.log(stage, at, **scalars)
    bar.update(at, f"loss {scalars['loss']:.4f}")
