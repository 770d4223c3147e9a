"""DSA: dataset condensation with differentiable Siamese augmentation (Zhao & Bilen, ICML 2021).

DC (``methods/dc.py``) in which, for each class and step, one operation with one set of parameters
(``augment/dsa.py``) is applied to all real and all synthetic images before their gradients:

    L = sum_c D( grad_theta l(A_c(S_c); theta), grad_theta l(A_c(R_c); theta) )

The net is trained on the synthetic images with augmentations per image, and so are the nets of the
evaluation.

Differs from the authors' code: as DC; the draw of A_c is a function of seed, step and class, not of
the clock.
"""

from __future__ import annotations

from jdd.methods import dc
from jdd.methods.base import Method, Problem
from jdd.specs.dc import Matching


def make(config: Matching, problem: Problem) -> Method:
    """Build DSA for a resolved config and its problem."""
    return dc.build(config, problem, augmented=True)
