"""Steps back: a diverged run goes on from an earlier state, at lower rates.

Where neither a paper nor jdd has settings for the data and IPC, a divergence is answered at most
``steps_back`` times. Each time

    1. the run goes back to the last milestone (``run/milestones.py``) at most half way to the step
       that diverged; the last time, and where there is no such milestone, to step 0;
    2. the rates of learned variables that the cause names are divided by ``FACTOR``: of images or
       latents, of labels, of text vectors and similarities of pairs, and of learned student rates.
       A learned rate that fell to 0 or below names its own rate alone.

Then the run is one at the new rates from that state on. A run that diverges again after the last
time ends as any other. A step back is a function of the seed and of the steps: an interrupted run
takes the same ones. Published rows and jdd's own settings are never changed, since that would hide
a failure to reproduce. Neither are sets made in parts, whose images move by Adam, one part after
another, nor the phases before a set, such as those that train a generator: a part or a phase at
other rates than the rest would be another method.

``checkpoints/STAGE-milestones/steps_back.json`` is written before anything is deleted: ``taken``
holds the steps back, ``completed`` the number of those whose outdated checkpoints are deleted. It
cannot be made again: the process that makes the seed writes it, and a damaged one is refused.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import config as configs
from jdd.config import fitting
from jdd.data.transform import MOST
from jdd.errors import Diverged
from jdd.methods.base import Method, Problem, State
from jdd.report import steps_back as words
from jdd.run import loop
from jdd.run.context import RunContext
from jdd.run.divergence import Cause, StepDiverged, positive
from jdd.run.milestones import Milestones
from jdd.run.session import Session
from jdd.schema.common import Common
from jdd.storage import failures, json_files

FACTOR = 3.0
# Outer rates of learned variables. A fixed rate of the students is not among them: no earlier state
# would be another one.
RATES = ("lr_img", "latent.lr", "lr_lr", "lr_y", "lr_label", "lr_txt", "lr_sim")
FAR = 10.0  # finite images have diverged if most pixels are further than this from [0, 1]


def acts(context: RunContext) -> bool:
    """Return whether a run may step back."""
    config = context.config
    unsettled = config.steps_back > 0 and fitting.without_settings(config)
    return unsettled and bool(positive(config, RATES))


def recorded(context: RunContext, seed: int) -> dict[str, Any]:
    """Return the steps back of a seed with the rates in force, for the recipe; {} if none."""
    taken = _taken(context, seed) if acts(context) else []
    return {"rates": _rates(taken), "taken": taken} if taken else {}


class StepsBack:
    """The steps back of one seed's outer loop. A step back that was interrupted is completed."""

    def __init__(self, context: RunContext, seed: int, session: Session):
        self._context, self._seed, self._session = context, seed, session
        self._stage = context.stage(seed)
        for number, taken in enumerate(_taken(context, seed)):
            self._log(number, taken)
        self._complete()

    @property
    def config(self) -> Common:
        """The run's config with the rates in force."""
        rates = self.rates
        return configs.replace(self._context.config, rates) if rates else self._context.config

    @property
    def rates(self) -> dict[str, float]:
        """The rates in force of those that have changed, by key."""
        return _rates(_taken(self._context, self._seed))

    def milestones(self) -> Milestones:
        """Return the milestones, of which the base is that of the last step back."""
        taken, config = _taken(self._context, self._seed), self._context.config
        most = config.steps_back
        # The last step back is to step 0, so that of one alone no milestone is needed.
        folder = self._context.workdir / "checkpoints" / f"{self._stage}-milestones"
        base = int(taken[-1]["to"]) if taken else 0
        keep = most if most > 1 else 0
        return Milestones(folder, keep, self._fault, base, config.verify_files)

    def take(self, error: StepDiverged) -> bool:
        """Step back after a divergence; return whether the run goes on."""
        context, taken = self._context, _taken(self._context, self._seed)
        left = context.config.steps_back - len(taken)
        keys = tuple(key for key in error.cause.keys if key in RATES)
        rates = positive(self.config, keys)
        if left <= 0 or error.first or not rates:
            return False
        to = self.milestones().before(error.step / 2) if left > 1 else 0
        found = {
            "step": error.step,
            "cause": error.cause.what,
            "to": to,
            "rates": {name: [rate, rate / FACTOR] for name, rate in rates.items()},
        }
        _write(context, self._seed, "taken", [*taken, found])
        self._log(len(taken), found)
        self._session.say(
            f"{self._stage}: {words.sentence(found)} "
            f"({len(taken) + 1} of {context.config.steps_back} steps back)"
        )
        self._complete()
        return True

    def last_good(self, method: Method, error: StepDiverged) -> tuple[State, int]:
        """Return the last good state and its step, of a run that ends with ``error``."""
        if error.good is None:
            config = self._context.config
            return loop.last(method, config, self._seed, self._session, self._stage)
        carry = loop.start(method, self._seed)
        if error.good:
            restored = self.milestones().restore(error.good, carry)
            carry = jax.tree.map(jnp.asarray, restored)
        return carry.state, error.good

    def ended(self, error: StepDiverged) -> Diverged:
        """Return the error that a run ends with, which states what steps back have tried."""
        taken = _taken(self._context, self._seed)
        if not taken:
            return error
        first = configs.flat(self._context.config)
        tried = ", ".join(
            f"{name} from {first[name]:.3g} to {rate:.3g}" for name, rate in _rates(taken).items()
        )
        count = f"{len(taken)} step{'s' * (len(taken) > 1)} back"
        return Diverged(f"{error}. {count}, with {tried}, did not help")

    def _complete(self) -> None:
        """Delete the checkpoints after the state that the last step back goes to."""
        context, taken = self._context, _taken(self._context, self._seed)
        if _read(context, self._seed).get("completed", 0) == len(taken):
            return
        self.milestones().forget_after(int(taken[-1]["to"]))
        shutil.rmtree(context.workdir / "checkpoints" / self._stage, ignore_errors=True)
        _write(context, self._seed, "completed", len(taken))

    def _log(self, number: int, taken: Mapping[str, Any]) -> None:
        """Write a step back to the metrics, once."""
        line = f"steps_back{self._context.suffix(self._seed)}"
        rates = {name: after for name, (_, after) in taken["rates"].items()}
        about = {"diverged_at": taken["step"], "cause": taken["cause"], "to": taken["to"]}
        self._session.metrics.log(line, number + 1, **about, **rates)

    def _fault(self, state: State) -> Cause | None:
        images = state.variables.get("images")
        transform = self._context.data.transform
        if images is None or transform.beyond(np.asarray(images), FAR) <= MOST:
            return None
        return Cause("most pixels are far from any picture", ("lr_img",))


def at_rates_in_force(problem: Problem, back: StepsBack | None) -> Problem:
    """Return the problem with the rates of the last step back, if there was one."""
    return problem if back is None else problem._replace(config=back.config)


def _file(context: RunContext, seed: int) -> Path:
    return context.workdir / "checkpoints" / f"{context.stage(seed)}-milestones/steps_back.json"


def _read(context: RunContext, seed: int) -> dict[str, Any]:
    path = _file(context, seed)
    if not path.exists():
        return {}
    return json_files.read(path, "begin the run anew in another --workdir")


def _write(context: RunContext, seed: int, key: str, value: Any) -> None:
    path, known = _file(context, seed), _read(context, seed)
    failures.folder(path.parent, context.workdir)
    json_files.write(path, known | {key: value})


def _taken(context: RunContext, seed: int) -> list[dict[str, Any]]:
    return list(_read(context, seed).get("taken", []))


def _rates(taken: list[dict[str, Any]]) -> dict[str, float]:
    """Return the rates in force of those that have changed, by key."""
    return {name: after for one in taken for name, (_, after) in one["rates"].items()}
