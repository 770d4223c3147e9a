"""DD-Ranking scores: the share of accuracy due to the images, not to labels or augmentation.

All accuracies are fractions, so every score is in 0 .. 1.

Source: DD-Ranking (Li et al., 2025, arXiv 2505.13300). Differences from its package are listed in
``docs/scores.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Scores(NamedTuple):
    """Result of ``scores``. Every field is a fraction or a dimensionless score.

    hlr:  hard-label recovery, the gap to the whole training set: lower is better.
    slr:  soft-label recovery, the same gap with the set's soft labels; None for hard labels.
    ior:  improvement over random images with labels of the same kind.
    lrs:  label-robust score of alpha = w ior - (1 - w) hlr.
    ars:  augmentation-robust score of beta, the improvement over random images with and without.
    """

    hlr: float
    slr: float | None
    ior: float
    alpha: float
    lrs: float
    beta: float
    ars: float


def score(x: float) -> float:
    """Return (e^x - e^-1) / (e - e^-1): -1 .. 1 becomes 0 .. 1, steeper at the upper end."""
    low = math.exp(-1)
    return (math.exp(x) - low) / (math.e - low)


def scores(accuracy: Mapping[str, float], soft: bool, weight: float, gamma: float) -> Scores:
    """Return the scores of a set from mean accuracies.

        hlr = whole - syn_hard,   slr = whole - syn,   ior = syn - random
        alpha = w ior - (1 - w) hlr,   lrs = score(alpha)
        beta = g (syn_aug - random_aug) + (1 - g) (syn_noaug - random_noaug),   ars = score(beta)

    Args:
      accuracy: fractions by name. ``whole``: the whole training set; ``syn``, ``random``: the set
        and random images by the set's recipe, with its kind of labels; ``syn_hard``: the set with
        its labels replaced by their classes; ``_aug``, ``_noaug``: with and without augmentation.
      soft: whether the set's labels are soft.
      weight, gamma: w and g, in 0 .. 1.
    """
    hlr, ior = accuracy["whole"] - accuracy["syn_hard"], accuracy["syn"] - accuracy["random"]
    gains = [accuracy[f"syn_{a}"] - accuracy[f"random_{a}"] for a in ("aug", "noaug")]
    alpha = weight * ior - (1 - weight) * hlr
    beta = gamma * gains[0] + (1 - gamma) * gains[1]
    slr = accuracy["whole"] - accuracy["syn"] if soft else None
    return Scores(hlr, slr, ior, alpha, score(alpha), beta, score(beta))
