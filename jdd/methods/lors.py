"""LoRS: pairs with a learned low-rank similarity (Xu et al., ICML 2024).

VL (``methods/vl.py``) with the similarity of image i and text j learned together with the pairs:

    S = diag(w) + (alpha / r) L R^T,   w = 1, L ~ N(0, 1), R = 0 at the start: S is the identity
    l = the loss of the logits against S of the step's pairs, wBCE by default
    w, L, R <- SGD(m) step of rate lr_sim with dL/dw, dL/dL, dL/dR

``estimator=tesla`` is the authors' form: the influence of an image on the gradients of later steps
is dropped. The exact gradient is the default.

Differs from the authors' code: as VL; the rest of a permutation, shorter than a batch, is left out.
"""

from __future__ import annotations

from jdd.methods import vl
from jdd.methods.base import Method, Problem
from jdd.specs.lors import Config


def make(config: Config, problem: Problem) -> Method:
    """Build LoRS for a resolved config and its problem."""
    vary = vl.Variation(config.sim_rank, config.sim_alpha, config.lr_sim)
    return vl.build(config, problem, vary)
