"""EDC: elucidated dataset condensation (Shao, Zhou, Chen, Zhang & Shen, NeurIPS 2024).

G-VBSM's recovery (``methods/gvbsm.py``) of real images instead of noise, with targets of all real
images and targets of the batch's classes, and without the density:

    L = CE(f_m(A(X)), y) + r_bn sum_l w_l sum_s ((1 - category) |E_ls - T_ls|
                                                 + category |E_ls - mean_i C_ls(y_i)|)

m, E, T and w as there; C_ls(c) is the mean over the real images of class c of the statistic s of
one image at layer l, so its variances are those within an image. One average E serves both terms.
Students train in small batches on views with RandAugment (``augment/randaugment.py``) by the
squared distance to the teachers' logits and 0.025 times the cross entropy; an average of their
weights is tested (``Recipe.ema``).

Differs from the authors' code: E starts as its first statistics, theirs at 0, and the patch
statistics of classes are not exchanged, where theirs have mean and variance in each other's place
(``ref_bugs``: both as theirs); batches are independent of each other, as in G-VBSM; the flatness
term, which their scripts switch off, is left out; the final step counts, not the best on test data.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jdd.matching.statistics import Hooks, Keep, statistics_loss
from jdd.methods import gvbsm, recovery
from jdd.methods.base import Method, Problem
from jdd.pretrained import feature_statistics
from jdd.specs.edc import Config

parts = recovery.parts
validate_teachers = gvbsm.validate_teachers


def make(config: Config, problem: Problem, part: recovery.Part | None = None) -> Method:
    """Build EDC for ``problem``: the whole set or one part."""
    validate_teachers(problem.teachers)
    bugs, share = config.ref_bugs, config.category

    def distance(
        found: Hooks, target: Hooks, names: tuple[str, ...], first: float, keep: Keep, own: Any
    ) -> jax.Array:
        whole, _ = statistics_loss(found, target, names, first, keep)
        if not share:
            return whole
        labels, table = own
        of_batch = gvbsm.unpacked(jnp.mean(table[labels], axis=0), found)
        of_batch = exchanged(of_batch) if bugs else of_batch
        by_class, _ = statistics_loss(found, of_batch, names, first, keep)
        return (1 - share) * whole + share * by_class

    more = {
        str(m): jax.vmap(gvbsm.packed)(
            feature_statistics.class_targets(teacher, problem.data, config.patch)
        )
        for m, teacher in enumerate(problem.teachers if share else ())
    }
    return gvbsm.matched(config, problem, part, bugs, distance, more)


def exchanged(hooks: Hooks) -> Hooks:
    """Return statistics whose patch means and variances have changed places, as published."""
    other = {"patch_mean": "patch_var", "patch_var": "patch_mean"}
    return {name: {key: own[other.get(key, key)] for key in own} for name, own in hooks.items()}
