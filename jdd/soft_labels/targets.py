"""Losses of a student on a teacher's labels.

``rows`` are weights [b] that sum to 1, 0 for padding; None: 1/b each. ``kind`` is the type of the
teacher's labels [b, C], as ``codec.decode`` returns it: "logits", to which the temperature is
applied here, or "probabilities", which are at that temperature already.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.matching.losses import cross_entropy_sum

KINDS = ("logits", "probabilities")


def kl(
    teacher: jax.Array,
    student: jax.Array,
    temperature: float,
    kind: str = "logits",
    rows: jax.Array | None = None,
    squared: bool = False,
) -> jax.Array:
    """Return sum_i rows_i KL(p_i || softmax(s_i / T)) (nats), times T^2 if ``squared``.

    The gradient decreases as 1/T^2. SRe2L, CDA, RDED and FKD omit the factor T^2; SRe2L on
    Tiny-ImageNet and knowledge distillation (Hinton, Vinyals & Dean, 2015) have it.

    Args:
      teacher: [b, C]; p = softmax(teacher / T), or the probabilities given, in which 0 log 0 = 0.
      student: logits s [b, C].

    Raises:
      BadInput: ``kind`` is not one of ``KINDS``.
    """
    if _checked(kind) == "logits":
        log_p = jax.nn.log_softmax(teacher / temperature)
        p = jnp.exp(log_p)
    else:
        p = teacher
        log_p = jnp.log(jnp.where(p > 0, p, 1))
    each = jnp.sum(p * (log_p - jax.nn.log_softmax(student / temperature)), axis=-1)
    return _factor(temperature, squared) * jnp.sum(_rows(rows, each) * each)


def mse_gt(
    student: jax.Array,
    teacher: jax.Array,
    labels: jax.Array,
    weight: float,
    rows: jax.Array | None = None,
) -> jax.Array:
    """Return sum_i rows_i (mean_c (s_ic - z_ic)^2 + weight CE(s_i, y_i)).

    Without ``rows`` the first term is the mean over all entries. ``labels`` are those of the images
    themselves, also for mixed views.

    Args:
      student, teacher: logits s and z [b, C].
      labels: y [b], 0 .. C-1.
      weight: 0.15 for CIFAR, 0.1 for ImageNet in G-VBSM, 0.025 in EDC.

    Source: G-VBSM (Shao, Yin, Zhou, Zhang & Shen, CVPR 2024), as in its code.
    """
    each = jnp.mean(jnp.square(student - teacher), axis=-1)
    by = _rows(rows, each)
    hard = jax.nn.one_hot(labels, student.shape[-1], dtype=student.dtype)
    return jnp.sum(by * each) + weight * cross_entropy_sum(student, hard, by)


def _checked(kind: str) -> str:
    if kind not in KINDS:
        raise BadInput("kind of the teacher's labels", repr(kind), f"one of {', '.join(KINDS)}")
    return kind


def _rows(rows: jax.Array | None, each: jax.Array) -> jax.Array:
    return jnp.full_like(each, 1 / len(each)) if rows is None else rows


def _factor(temperature: float, squared: bool) -> float:
    return temperature**2 if squared else 1.0
