"""SRe2L: squeeze, recover and relabel (Yin, Xing & Shen, NeurIPS 2023).

A net theta with batch norm is trained on the whole dataset (squeeze). With its weights and its
statistics fixed, images X of labels y are optimised by the gradient of

    L = CE(f(A(X)), y) + r_bn sum_l w_l (|mu_l(A(X)) - mu^_l| + |s2_l(A(X)) - s2^_l|)

with mu_l and s2_l the mean and variance of the input of batch norm l, over images and places, mu^_l
and s2^_l its running statistics, norms over channels, w_1 = first_bn, other w_l = 1. A is one crop,
one flip and one circular shift for the whole batch. Then the net labels every view of the images
in a student's training (``stages/relabel.py``).

Differs from the authors' code: the images' total-variation and L2 terms, of weight 0 in all of its
scripts, are left out; draws are a function of seed, batch and step; rates follow the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdd.augment import views
from jdd.augment.crop_schedule import crop_schedule
from jdd.matching import losses, statistics
from jdd.methods import recovery
from jdd.methods.base import Method, Problem
from jdd.schema.decoupled import Recover
from jdd.specs import cda

Tree = Any
parts = recovery.parts


def validate_teachers(teachers: Sequence[Any]) -> None:
    """Refuse a first teacher without batch norm: images are recovered from its statistics."""
    recovery.hooks(teachers[0].net, ["batch"])


def make(config: Recover, problem: Problem, part: recovery.Part | None = None) -> Method:
    """Build SRe2L, or CDA with a curriculum, for ``problem``: the whole set or one part."""
    net, classes, steps = problem.teachers[0].frozen, problem.data.classes, config.steps
    drawn = recovery.spec(config, problem.data.shape)
    falls = config if isinstance(config, cda.Config) and config.curriculum != "none" else None
    hooks = recovery.hooks(net, ["batch"])

    def loss(
        images: jax.Array, labels: jax.Array, aux: Tree, item: Tree, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        low = None
        if falls is not None:
            kind, until = falls.curriculum, falls.milestone
            low = crop_schedule(aux["step"], steps, kind, until, drawn.scale[0])
        view = views.draw(key, len(images), images.shape[1:], drawn, low)
        out = net.apply(aux["teacher"], views.apply(images, view), train=False, taps=True)
        ce = losses.cross_entropy(out.logits, jax.nn.one_hot(labels, classes))
        stats = aux["teacher"]["batch_stats"]
        bn, _ = statistics.batch_norm_loss(out.taps, stats, hooks, config.first_bn)
        right = jnp.mean(jnp.argmax(out.logits, axis=-1) == labels)
        metrics = {"ce": ce, "bn": bn, "agreement": right}
        return ce + config.r_bn * bn, ({}, metrics)

    return recovery.build(problem, part, loss, {"teacher": problem.teachers[0].variables()})
