"""Herding of pairs: real pairs whose mean embedding is that of all pairs (Welling, ICML 2009).

With u_i and v_i the unit embeddings of pair i's image and caption by two towers trained on all
pairs, f_i = [u_i; v_i], and m the mean of f over all training pairs:

    i_k = argmin_i || m - (f_{i_1} + ... + f_{i_{k-1}} + f_i) / k ||,    k = 1 .. pairs

An image is chosen at most once, with one of its captions. The towers are expert 0 of the run's
store at its last epoch. Nothing else is random: the set is equal for every seed of the run.

Differs from the authors' code: VL's and LoRS' papers have such a baseline without saying what it
is computed on; the concatenation is jdd's choice.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np

from jdd.data.pairs import PairSplit
from jdd.evaluation.predict import embed
from jdd.matching import selection
from jdd.methods.base import Method, Problem
from jdd.methods.pairs import chosen
from jdd.specs.herding_pairs import Config


def build(config: Config, problem: Problem, rule: selection.Rule) -> Method:
    """Build the selection by ``rule`` on the embeddings of all training pairs."""
    train = cast(PairSplit, problem.data.train)

    @cache
    def rows() -> np.ndarray:
        assert problem.experts is not None
        if not problem.experts.trained:  # an estimate of cost does not depend on the pairs
            return np.unique(train.image_of, return_index=True)[1][: config.pairs]
        net = problem.nets["student"]
        variables = problem.experts.read(0, config.experts.epochs)
        image = embed(net, variables, "image", train.images)
        text = embed(net, variables, "text", train.text)
        found = np.concatenate([image[train.image_of], text], axis=1)
        return rule(found, config.pairs, train.image_of)

    return chosen(config, problem, lambda seed: rows())


def make(config: Config, problem: Problem) -> Method:
    """Build herding of pairs for a resolved config and its problem."""
    return build(config, problem, selection.herding)
