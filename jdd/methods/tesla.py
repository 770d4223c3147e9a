"""TESLA: trajectory matching with the adjoint frozen (Cui, Wang, Si & Hsieh, ICML 2023).

MTT's loss, which for a constant rate beta reads, with g_j the inner gradient at step j,
G = sum_j g_j, r = theta*_t - theta*_{t+M} and D = ||r||^2,

    L = ||r - beta G||^2 / D

and a gradient in which every theta_j, and G in products with images, are constants:

    dL/dS_{b_j} ~ (2 / D) d/dS (beta^2 G - beta r) . g_j(theta_j; S),
    dL/dbeta    ~ (2 / D) (beta G - r) . G

That is reverse mode with the adjoint of theta_N used at every step (``estimator=tesla`` in
``meta/unroll.py``); ``estimator=exact`` computes the same loss's own gradient. With
``teacher_label`` the labels of a step are softmax(f(S; theta*_{t+M})).

Differs from the authors' code: the image gradient has the factor 2 that theirs lacks, so their
lr_img is halved in ``jdd/specs/tesla.py``; one pass each way instead of two forward.
"""

from __future__ import annotations

from jdd.methods import mtt
from jdd.methods.base import Method, Problem
from jdd.specs.tesla import Config


def make(config: Config, problem: Problem) -> Method:
    """Build TESLA for a resolved config and its problem."""
    return mtt.build(config, problem, mtt.Variation(teacher=config.teacher_label))
