"""K-center: real images so that none of their class is far from all of them (Gonzalez 1985).

With f the features that a net trained on the whole set hands to its classifier, and m_c the mean of
f over class c:

    i_1 = argmin_i || f_i - m_c ||,    i_k = argmax_i min_{j < k} || f_i - f_{i_j} ||

The net and all else are herding's (``jdd/methods/herding.py``).

Differs from the authors' code: two variants are in print for CIFAR, one (DC's and CAFE's papers)
far below the other (DM's); what the low one starts from and measures in is not documented. This is
the documented rule, with its start at the image nearest the mean.
"""

from __future__ import annotations

from jdd.matching import selection
from jdd.methods import herding
from jdd.methods.base import Method, Problem
from jdd.schema.common import Common


def make(config: Common, problem: Problem) -> Method:
    """Build k-center for a resolved config and its problem."""
    return herding.build(config, problem, selection.kcenter)
