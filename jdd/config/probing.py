"""Which rates a run without settings of its own probes, and at how many steps.

See ``stages/probe.py`` for what is done with them.
"""

from __future__ import annotations

from typing import NamedTuple

from jdd.schema.common import Common
from jdd.schema.latent import NONE
from jdd.schema.values import flat

FACTORS = (1.0, 0.1, 10.0, 0.01)  # of the row's rate, the first to be kept if there are few steps
JUDGED = 2  # steps that a candidate is judged by
FEWEST = 2  # steps of each candidate, at least
SHARE = 10  # the probe takes at most this part of a run's steps


class Plan(NamedTuple):
    """Factors of the rate, and the steps of each candidate."""

    factors: tuple[float, ...]
    steps: int

    @property
    def calls(self) -> int:
        """Gradients in all: the steps and ``JUDGED`` of each candidate, and ``JUDGED`` of the
        start.
        """
        return len(self.factors) * (self.steps + JUDGED) + JUDGED


def plan(steps: int) -> Plan | None:
    """Return the plan for a run of ``steps`` steps; None if a tenth of them is too few for two."""
    budget = steps // SHARE
    for count in range(len(FACTORS), 1, -1):
        each = (budget - JUDGED) // count - JUDGED
        if each >= FEWEST:
            return Plan(FACTORS[:count], each)
    return None


def probed(config: Common, steps: int) -> tuple[str, ...]:
    """Return the keys that a run of ``steps`` steps probes if they are not given.

    Args:
      config: a config with fitted settings.
    """
    latents = flat(config).get("latent.prior", NONE) not in ("", NONE)
    if not config.probe or latents or plan(steps) is None:
        return ()
    return config.spec.probe
