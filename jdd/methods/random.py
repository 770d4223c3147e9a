"""Random real images: what every method is held to.

    S_c = ipc images of class c, drawn without replacement, each set as likely as any other

The draw is a function of the seed (``jdd/rng.py``). No net is asked and no step taken. The random
baseline beside every run is drawn afresh for each net; this method's set is one draw, kept.

Differs from the authors' code: there is none to differ from.
"""

from __future__ import annotations

from jdd import rng
from jdd.data import draw_per_class
from jdd.methods.base import Method, Problem, chosen
from jdd.specs.random import Config


def make(config: Config, problem: Problem) -> Method:
    """Build the choice for a resolved config and its problem."""
    data, ipc = problem.data, config.ipc
    return chosen(
        problem,
        lambda seed: draw_per_class(
            rng.host(seed, "random/choice"), data.train.labels, data.classes, ipc
        ),
    )
