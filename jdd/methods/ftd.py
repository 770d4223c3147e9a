"""FTD: trajectory matching on flat expert trajectories (Du, Jiang, Tan, Zhou & Li, CVPR 2023).

MTT's loss, sampling and optimisers. What is new:

  experts    follow the direction of adaptive GSAM in place of the gradient (``experts.sam_rho``,
             ``experts.sam_alpha``; ``training/trainer.py:flat_gradient``), so that a student that
             starts near the expert ends near it;
  images     saved are the average E <- d E + (1 - d) S over the steps, d = ``ema``; the average
             does not affect the optimised S.

Differs from the authors' code: as MTT (``methods/mtt.py``).
"""

from __future__ import annotations

from jdd.methods import mtt
from jdd.methods.base import Method, Problem
from jdd.specs.ftd import Config


def make(config: Config, problem: Problem) -> Method:
    """Build FTD for a resolved config and its problem."""
    return mtt.build(config, problem, mtt.Variation(ema=config.ema))
