"""K-center: real images that cover their class, by greedy farthest points (Gonzalez 1985).

With f the features (the classifier's inputs) of a net trained on the whole set, and m_c the mean of
f over class c:

    i_1 = argmin_i || f_i - m_c ||,    i_k = argmax_i min_{j < k} || f_i - f_{i_j} ||

The net and everything else are as in herding (``jdd/methods/herding.py``).

Differs from the authors' code: two variants are published for CIFAR, one (DC's and CAFE's papers)
far below the other (DM's); start and metric of the lower one are not documented. This is the
documented rule, started at the image nearest the mean.
"""

from __future__ import annotations

from jdd.matching import selection
from jdd.methods import herding
from jdd.methods.base import Method, Problem
from jdd.schema.common import Common


def make(config: Common, problem: Problem) -> Method:
    """Build k-center for a resolved config and its problem."""
    return herding.build(config, problem, selection.kcenter)
