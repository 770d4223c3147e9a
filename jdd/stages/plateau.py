"""Early end of distillation where the accuracy on held-out images is flat (``stop=plateau``).

The curve of a run has points of mean accuracy m_i and standard deviation s_i over its nets. After
a point, with K = ``POINTS``, the run ends if

    max(m_i, the last K points) <= m_b + sqrt(mean(s_i^2, i = b and the last K points)),

b the best point before these K: nothing since then is above it by more than the spread. The set is
that of this step. The rule reads the lines of the curve in ``metrics.jsonl`` alone, so that an
interrupted run ends at the same step. Images held out of the training data decide, never test
images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jdd import config as configs
from jdd import methods
from jdd.errors import BadInput
from jdd.report import stopped as words
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.stages.registry import curve

POINTS = 3  # K
CURVE = 20  # points of the curve that a refusal advises
FEWEST = POINTS + 2  # points of a curve that may end a run before its last point


class Point(NamedTuple):
    """A point of the curve: the step, mean accuracy and its standard deviation over nets."""

    step: int
    mean: float
    std: float


class Flat(NamedTuple):
    """Why a curve is flat: the best point before the last ``POINTS``, their best, the spread."""

    best: Point
    latest: float
    spread: float


def flat(points: Sequence[Point]) -> Flat | None:
    """Return why a curve is flat, by the rule of the module; None if it is not."""
    if len(points) <= POINTS:
        return None
    last = points[-POINTS:]
    best = max(points[:-POINTS], key=lambda point: point.mean)
    of = [best, *last]
    spread = math.sqrt(sum(point.std**2 for point in of) / len(of))
    latest = max(point.mean for point in last)
    return None if latest > best.mean + spread else Flat(best, latest, spread)


def validate(context: RunContext) -> None:
    """Refuse ``stop=plateau`` for a run without what decides it.

    Raises:
      BadInput: no images are held out, the curve has too few points or nets, or the method does
        not make its set by steps.
    """
    config = context.config
    if config.stop != "plateau":
        return
    title, values = config.spec.title, configs.flat(config)
    if config.spec.task == "retrieval":
        raise _refused(f"{title} learns pairs", "")
    if (objective := values.get("objective", "distill")) != "distill":
        raise _refused(f"the objective is {objective}", "")
    if not config.steps or methods.parts(config, context.blank):
        raise _refused(f"{title} makes its set {'in parts' if config.steps else 'in no steps'}", "")
    if context.data.val is None:
        raise _refused("no training images are held out to decide it", "data.val=0.1")
    if config.eval.curve < FEWEST:
        found = f"config.eval.curve={config.eval.curve} gives too few points"
        raise _refused(found, f"eval.curve={CURVE}")
    if config.eval.curve_n < 2:
        raise _refused("config.eval.curve_n=1 gives no spread", "eval.curve_n=2")


def _refused(found: str, advice: str) -> BadInput:
    allowed = f"--config.{advice} with it, or never" if advice else "never"
    return BadInput("config.stop", f"plateau, and {found}", allowed)


class Rule:
    """The rule of one seed's loop: called with a step, whether the run ends there.

    Attributes:
      ended: why the run ended, for the recipe; {} if it has not.
    """

    def __init__(self, context: RunContext, seed: int, session: Session):
        self._context, self._seed, self._session = context, seed, session
        self.ended: dict[str, Any] = {}
        self._line = f"stop{context.suffix(seed)}"
        session.metrics.truncate(self._line, -1)  # the loop that this rule is of has not ended yet

    def __call__(self, at: int) -> bool:
        """Return whether the curve is flat at its point of step ``at``, if it has one there."""
        stage, metrics = self._context.stage(self._seed), self._session.metrics
        if self._context.config.stop != "plateau" or not metrics.has(curve(stage), at):
            return False
        lines = metrics.lines(curve(stage))
        points = [Point(line["step"], line["accuracy"], line["std"] or 0.0) for line in lines]
        found = flat(points)
        if found is None:
            return False
        about = {
            "of": self._context.config.steps, "points": POINTS,
            "best": found.best.mean, "best_step": found.best.step,
            "latest": found.latest, "spread": found.spread,
        }  # fmt: skip
        self.ended = {"rule": "plateau", "step": at, **about}
        metrics.log(self._line, at, **about)
        self._session.say(f"{stage}: ended at step {words.sentence(self.ended)}")
        return True
