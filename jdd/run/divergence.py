"""What a diverged step is reported as: the quantity that went bad, and the keys to change."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jdd import rng
from jdd.config.changes import changes
from jdd.config.files import stage_names
from jdd.errors import Diverged
from jdd.methods.base import Method, State, all_finite
from jdd.schema.common import Common
from jdd.schema.values import flat

Tree = Any
# Learned variables: in words, and the keys of their learning rates.
_VARIABLES: dict[str, tuple[str, tuple[str, ...]]] = {
    "images": ("the images", ("lr_img",)),
    "latents": ("the latents", ("latent.lr", "lr_img")),
    "lr": ("the learned rate", ("lr_lr",)),
    "raw": ("the learned rates of the steps", ("lr_lr",)),
    "labels": ("the labels", ("lr_y", "lr_label", "lr_img")),
    "similarity": ("the similarity", ("lr_sim",)),
    "text": ("the text vectors", ("lr_txt",)),
    "generator": ("the generator", ("match.lr", "gan.lr")),
    "critic": ("the critic", ("match.lr", "gan.lr")),
}
_RATES = (
    *("lr_sim", "lr_img", "lr_txt", "lr_lr", "lr_y", "lr_label", "lr_student"),
    *("match.lr", "gan.lr"),
)


class Cause(NamedTuple):
    """The quantity that went bad, in words, and the keys of the rates that it follows."""

    what: str
    keys: tuple[str, ...]


class StepDiverged(Diverged):
    """An outer loop diverged.

    Attributes:
      step: the number of the step that diverged, from 1.
      cause: what went bad.
      first: the loss or a gradient was bad before any step was done: no outer rate is at fault.
      good: the step of the last state known to be good, where it is not that of the checkpoint.
    """

    def __init__(
        self, line: str, step: int, cause: Cause, first: bool = False, good: int | None = None
    ):
        super().__init__(line)
        self.step, self.cause, self.first, self.good = step, cause, first, good


def cause(method: Method, config: Common, seed: int, carry: Tree, result: Tree) -> Cause:
    """Return what went bad in a step that a method or the loop refused.

    Args:
      carry: ``run.loop.Carry`` before that step.
      result: the step's ``((loss, (aux, metrics)), gradient)``.
    """
    (loss, (aux, _)), grads = result
    old = carry.state
    if not np.isfinite(float(loss)):
        return _of_loss(config, float(loss), old)
    for name, gradient in grads.items():
        if not all_finite(gradient):
            words, keys = _of(name)
            student = ("lr_student",) if hasattr(config, "unroll") else ()
            keys = (*_similarity(config), *student, *keys)
            return Cause(f"the gradient of {words} became infinite or NaN", keys)
    outer = optax.with_extra_args_support(method.optimizer)
    moves, _ = outer.update(grads, carry.optimizer, old.variables, value=loss)
    new = State(optax.apply_updates(old.variables, moves), old.aux | aux)
    new = method.advance(new, rng.key(seed, "advance", carry.step))
    for name, value in new.variables.items():
        words, keys = _of(name)
        if not all_finite(value):
            return Cause(f"{words} became infinite or NaN", keys)
        if name == "lr" and _least(value) <= 0:
            was, now = (_short(_least(x)) for x in (old.variables[name], value))
            return Cause(f"{words} fell from {was} to {now}", keys)
    return Cause("the state left the range that the method allows", _RATES)


def _of_loss(config: Common, loss: float, state: State) -> Cause:
    """Return the cause of a loss that is not finite."""
    if not hasattr(config, "unroll"):
        rates = ("lr_img", "lr_txt", "lr_y", "lr_label", "match.lr", "gan.lr")
        return Cause(f"the loss became {loss}", rates)
    keys, at = ("lr_student", *(key for name in state.variables for key in _of(name)[1])), ","
    learned, first = state.variables.get("lr"), getattr(config, "lr_student", None)
    if learned is not None and first is not None:
        rate = max(float(r) for r in jax.tree.leaves(learned))
        at = f", trained at the learned rate {_short(rate)},"
        if rate > 1.5 * first:  # not the rate of the start: it has grown
            keys = ("lr_lr", "lr_img")
    keys = (*_similarity(config), *keys)
    return Cause(f"the parameters of the student{at} and with them the loss became {loss}", keys)


def _similarity(config: Common) -> tuple[str, ...]:
    """Return the rate of a learned similarity, the first to lower; () of a method without one."""
    return ("lr_sim",) if getattr(config, "lr_sim", 0) else ()


def _least(rates: Tree) -> float:
    """Return the smallest of learned rates: one, one for every step, or one for each branch."""
    return min(float(jnp.min(r)) for r in jax.tree.leaves(rates))


def _short(value: object) -> str:
    return f"{float(np.asarray(value)):.3g}"


def _of(name: str) -> tuple[str, tuple[str, ...]]:
    return _VARIABLES.get(name, (f"the variable {name!r}", ("lr_img",)))


def remedies(config: Common, keys: tuple[str, ...] = _RATES) -> list[str]:
    """Return flags that may prevent divergence: those rates of ``keys`` that the method has, at
    their defaults if they are above them, else divided by 10; and real images at the start if they
    start as noise.

    None of them is in force already. Without such a rate it is another seed.
    """
    rates = positive(config, keys)
    if not hasattr(config, "unroll"):
        rates.pop("lr_student", None)
    changed = changes(config, list(rates))
    found = []
    for name, rate in rates.items():
        default = changed[name].default if name in changed else rate
        usual = isinstance(default, float | int) and 0 < default < rate
        found.append(f"--config.{name}={default if usual else rate / 10:.3g}")
    if {"lr_img", "latent.lr"} & {*keys} and getattr(config, "pix_init", "") == "noise":
        found.append("--config.pix_init=real")
    return found or [f"--config.seed={config.seed + 1}"]


def positive(config: Common, keys: Collection[str]) -> dict[str, float]:
    """Return the rates of ``keys`` that a config has and that are above 0, by name.

    Where latents are learned, their rate takes the place of the images'.
    """
    values = flat(config)
    if values.get("latent.lr", 0.0):
        keys = ["latent.lr" if key == "lr_img" else key for key in keys]
    found = {name: float(values.get(name, 0) or 0) for name in dict.fromkeys(keys)}
    return {name: rate for name, rate in found.items() if rate > 0}


def message(
    config: Common,
    workdir: Path,
    stage: str,
    step: int,
    found: Cause,
    saved: Path | None = None,
    good: int | None = None,
) -> str:
    """Return the line for a run whose step ``step`` + 1 diverged.

    Args:
      saved: the file of the last good set, if the stage makes one.
      good: the step of the last good state; None: ``step``.
    """
    at = step if good is None else good
    last = f"the last good state, of step {at}, is kept" if step else "no step was completed"
    if step and saved is not None:
        last = f"the last good set, of step {at}, is {saved}"
    flags = " or ".join(remedies(config, found.keys))
    return (
        f"{stage} diverged at step {step + 1}: {found.what}; {last}. "
        f"Try {flags}, with a new --workdir{reused(config, workdir)}"
    )


def reused(config: Common, workdir: Path) -> str:
    """Return the flags by which a new directory reads the trained nets of this one; '' for none."""
    names = stage_names(config)
    flags = []
    groups = {"experts": config.experts, "squeeze": getattr(config, "squeeze", None)}
    for stage, group in groups.items():
        if stage in names and group is not None:
            flags.append(f"--config.{stage}.dir={group.dir or workdir / stage}")
    return f" and {' '.join(flags)} to reuse its nets" if flags else ""
