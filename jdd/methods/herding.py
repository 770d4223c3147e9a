"""Herding: real images whose mean feature approximates that of their class (Welling, ICML 2009).

With f the features (the classifier's inputs) of a net trained on the whole set, and m_c the mean of
f over class c:

    i_k = argmin_i || m_c - (f_{i_1} + ... + f_{i_{k-1}} + f_i) / k ||,    k = 1 .. ipc

The net is expert 0 of the run's store at its last epoch. Nothing else is random: the set is equal
for every seed of the run.

Differs from the authors' code: iCaRL (Rebuffi et al., CVPR 2017), the source of this form, divides
features by their length first; here they are not normalised.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from jdd.data import class_indices
from jdd.evaluation.predict import outputs
from jdd.matching import selection
from jdd.methods.base import Method, Problem, chosen
from jdd.schema.common import Common


def build(config: Common, problem: Problem, rule: selection.Rule) -> Method:
    """Build the selection by ``rule`` on the features of the whole training set."""
    train, classes, ipc = problem.data.train, problem.data.classes, config.ipc

    @cache
    def rows() -> np.ndarray:
        assert problem.experts is not None
        if not problem.experts.trained:  # an estimate of cost does not depend on the images
            return np.concatenate([np.resize(g, ipc) for g in class_indices(train.labels, classes)])
        variables = problem.experts.read(0, config.experts.epochs)
        features = outputs(problem.nets["student"], variables, train.images).features
        return selection.by_class(rule, features, train.labels, classes, ipc, config.ipc_short)

    return chosen(problem, lambda seed: rows())


def make(config: Common, problem: Problem) -> Method:
    """Build herding for a resolved config and its problem."""
    return build(config, problem, selection.herding)
