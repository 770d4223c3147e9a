"""K-center of pairs: real pairs that cover all pairs, by greedy farthest points (Gonzalez 1985).

With f_i = [u_i; v_i], the unit embeddings of pair i's image and caption, and m their mean:

    i_1 = argmin_i || f_i - m ||,    i_k = argmax_i min_{j < k} || f_i - f_{i_j} ||

An image is chosen at most once. The towers and everything else are as in herding of pairs
(``jdd/methods/herding_pairs.py``).

Differs from the authors' code: as herding of pairs; the start at the mean is jdd's choice.
"""

from __future__ import annotations

from jdd.matching import selection
from jdd.methods import herding_pairs
from jdd.methods.base import Method, Problem
from jdd.specs.herding_pairs import Config


def make(config: Config, problem: Problem) -> Method:
    """Build k-center of pairs for a resolved config and its problem."""
    return herding_pairs.build(config, problem, selection.kcenter)
