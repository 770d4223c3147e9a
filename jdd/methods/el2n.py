"""EL2N: real images chosen by the error of nets early in training (Paul et al., NeurIPS 2021).

With p_k the probabilities of net k of K after a few epochs on the whole set, and y the one-hot
label of image x:

    score(x) = 1/K sum_k || p_k(x) - y ||_2

and of each class the ``ipc`` images of lowest score (``select=easiest``), of highest (``hardest``),
or those around the quantile ``band`` of its scores (``select=band``).

The nets are the experts of the run's store at their last epoch. Nothing else is random: the set is
equal for every seed of the run.

Differs from the paper: it keeps the hardest half or more of a dataset, whatever their classes; of a
few images a class the hardest are the mislabelled and the odd ones, so the easiest are the default,
class by class. Its nets are ResNet18 after 20 of 200 epochs; here they are the run's net after 5,
of the 50 of the baseline on the whole set.
"""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from jdd.data import class_indices
from jdd.evaluation.predict import outputs
from jdd.matching import selection
from jdd.methods.base import Method, Problem, chosen
from jdd.specs.el2n import Config


def scores(config: Config, problem: Problem) -> np.ndarray:
    """Return the score of every training image, float64 ``[n]``."""
    train, store = problem.data.train, problem.experts
    assert store is not None
    found = []
    for expert in range(config.experts.count):
        variables = store.read(expert, config.experts.epochs)
        logits = outputs(problem.nets["student"], variables, train.images).logits
        found.append(selection.error_norms(logits, train.labels))
    return np.mean(found, axis=0)


def make(config: Config, problem: Problem) -> Method:
    """Build EL2N for a resolved config and its problem."""
    train, classes, ipc = problem.data.train, problem.data.classes, config.ipc
    place = {"easiest": 0.0, "hardest": 1.0, "band": config.band}[config.select]
    rule = partial(selection.band, place=place)

    @cache
    def rows() -> np.ndarray:
        assert problem.experts is not None
        if not problem.experts.trained:  # an estimate of cost does not depend on the images
            return np.concatenate([np.resize(g, ipc) for g in class_indices(train.labels, classes)])
        return selection.by_class(
            rule, scores(config, problem), train.labels, classes, ipc, config.ipc_short
        )

    return chosen(problem, lambda seed: rows())
