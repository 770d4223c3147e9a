"""Random real pairs: what every method that distils pairs is held to.

    n = pairs images, drawn without replacement, each with one of its captions

The draw is a function of the seed (``jdd/rng.py``). No step is taken. Students learn by InfoNCE at
one rate for both towers.

Differs from the authors' code: there is none to differ from.
"""

from __future__ import annotations

from typing import cast

from jdd import rng
from jdd.data.pairs import PairSplit
from jdd.methods.base import Method, Problem
from jdd.methods.pairs import chosen, draw
from jdd.specs.random_pairs import Config


def make(config: Config, problem: Problem) -> Method:
    """Build the choice for a resolved config and its problem."""
    train = cast(PairSplit, problem.data.train)
    purpose = "random_pairs/choice"
    return chosen(config, problem, lambda seed: draw(rng.host(seed, purpose), train, config.pairs))
