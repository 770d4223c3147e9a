"""Which rates a run without settings of its own probes, and at how many steps.

See ``stages/probe.py`` for what is done with them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from jdd.schema.common import Common
from jdd.schema.latent import NONE
from jdd.schema.values import flat

FACTORS = (1.0, 0.1, 10.0, 0.01)  # of the row's rate, with few steps the first ones alone
STUDENT, STUDENT_FACTORS = "lr_student", (1.0, 0.1, 10.0)
JUDGED = 2  # steps that a candidate is judged by
FEWEST = 2  # steps of each candidate for the images' rate, at least
SHARE = 10  # the probe takes at most this part of a run's steps


class Plan(NamedTuple):
    """Factors of the images' rate, the steps of each candidate, and factors of the students' rate.

    Factors of a rate that is not probed are (1,).
    """

    factors: tuple[float, ...]
    steps: int
    students: tuple[float, ...] = (1.0,)

    @property
    def calls(self) -> int:
        """Gradients in all: ``JUDGED`` of the start at each rate of the students, and the steps and
        ``JUDGED`` of each candidate for the images' rate.
        """
        images = len(self.factors) * (self.steps + JUDGED) if len(self.factors) > 1 else 0
        return len(self.students) * JUDGED + images


def plan(steps: int, keys: Collection[str]) -> Plan | None:
    """Return the plan for a run of ``steps`` steps; None if a tenth of them is too few for it.

    Args:
      keys: the rates to be probed.
    """
    students = STUDENT_FACTORS if STUDENT in keys else (1.0,)
    budget = steps // SHARE - JUDGED * len(students)
    if not {*keys} - {STUDENT}:
        return Plan((1.0,), 0, students) if keys and budget >= 0 else None
    for count in range(len(FACTORS), 1, -1):
        each = budget // count - JUDGED
        if each >= FEWEST:
            return Plan(FACTORS[:count], each, students)
    return None


def probed(config: Common, steps: int, given: Collection[str] = ()) -> tuple[str, ...]:
    """Return the keys that a run of ``steps`` steps probes: all that are not ``given``, or, if the
    steps are too few, those of the images alone; () if they are too few for these.

    Args:
      config: a config with fitted settings.
    """
    if not config.probe or flat(config).get("latent.prior", NONE) not in ("", NONE):
        return ()
    keys = tuple(name for name in config.spec.probe if name not in given)
    images = tuple(name for name in keys if name != STUDENT)
    return next((some for some in (keys, images) if plan(steps, some) is not None), ())
