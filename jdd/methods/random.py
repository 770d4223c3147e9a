"""Random real images: the baseline of every method.

    S_c = ipc images of class c, drawn uniformly without replacement

The draw is a function of the seed (``jdd/rng.py``), without nets or steps. The random baseline of a
run is drawn afresh for each net; this method's set is a single draw.

Differs from the authors' code: there is none.
"""

from __future__ import annotations

from jdd import rng
from jdd.data import draw_per_class
from jdd.methods.base import Method, Problem, chosen
from jdd.specs.random import Config


def make(config: Config, problem: Problem) -> Method:
    """Build the selection for a resolved config and its problem."""
    data, ipc = problem.data, config.ipc
    return chosen(
        problem,
        lambda seed: draw_per_class(
            rng.host(seed, "random/choice"),
            data.train.labels,
            data.classes,
            ipc,
            config.ipc_short,
        ),
    )
