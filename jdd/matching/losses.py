"""Losses on logits, by the kind of label."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jdd.errors import BadInput

KINDS = ("hard", "probabilities", "logits", "centred")


def targets(labels: jax.Array, kind: str, classes: int) -> jax.Array:
    """Return labels as ``[n, classes]`` targets: one-hot, given, softmax of logits, or given.

    Raises:
      BadInput: ``kind`` is not one of ``KINDS``.
    """
    if kind == "hard":
        return jax.nn.one_hot(labels, classes)
    if kind == "logits":
        return jax.nn.softmax(labels)
    if kind in KINDS:
        return labels
    raise BadInput("label_kind", f"{kind!r}", f"one of {', '.join(KINDS)}")


def centred(labels: jax.typing.ArrayLike, classes: int) -> jax.Array:
    """Return (one-hot - 1/C) / sqrt(C/10), the initial values of FRePo's labels.

    Args:
      labels: ``[n]``, 0 .. C-1.
      classes: C.

    Returns:
      ``[n, classes]``; a row sums to 0.

    Source: FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022), implementation details.
    """
    return centre(jax.nn.one_hot(labels, classes))


def centre(probabilities: jax.typing.ArrayLike) -> jax.Array:
    """Return (p - 1/C) / sqrt(C/10) of probabilities ``[n, C]``, as ``centred`` of one-hot rows."""
    p = jnp.asarray(probabilities)
    classes = p.shape[-1]
    return (p - 1 / classes) / math.sqrt(classes / 10)


def cross_entropy(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the mean over the batch of -sum_k target_k log softmax(logits)_k (nats).

    Args:
      logits: ``[n, classes]``.
      target: ``[n, classes]``.
    """
    return jnp.mean(-jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def cross_entropy_sum(logits: jax.Array, target: jax.Array, weight: jax.Array) -> jax.Array:
    """Return sum_i weight_i (-sum_k target_ik log softmax(logits_i)_k), for losses summed in parts.

    Args:
      logits, target: ``[n, classes]``.
      weight: ``[n]``; weights that sum to 1 over the whole batch give its mean.
    """
    return -jnp.sum(weight * jnp.sum(target * jax.nn.log_softmax(logits), axis=-1))


def squared_error(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the mean over the batch of 0.5 ||logits - target||^2, the loss of centred targets."""
    return jnp.mean(0.5 * jnp.sum(jnp.square(logits - target), axis=-1))
