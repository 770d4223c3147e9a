"""Ensembles of teachers: combination of their logits."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jdd.errors import BadInput

HOWS = ("mean", "equal_norm")


def combine(
    logits: Sequence[jax.Array], how: str = "mean", by: Sequence[jax.Array] | None = None
) -> jax.Array:
    """Combine the logits Z_m [b, C] of M teachers to one batch of logits [b, C].

        mean        (1/M) sum_m Z_m
        equal_norm  (1/M) sum_m (r / |Z_m|) Z_m,   r = (1/M) sum_m |Z_m|

    with Frobenius norms over the whole batch: a teacher of large logits does not dominate, and the
    average scale is preserved. All-zero logits stay zero. Padding would enter the norms: remove it
    first. ``by``: arrays to take the norms of, if not of ``logits``: label maps are scaled by the
    norms of their logits.

    Raises:
      BadInput: no teacher, teachers whose shapes differ, or an unknown ``how``.

    Source: G-VBSM (Shao, Yin, Zhou, Zhang & Shen, CVPR 2024): the mean on CIFAR and Tiny-ImageNet,
    equal norms on ImageNet; that their common norm is r is this library's choice.
    """
    if how not in HOWS:
        raise BadInput("combination of teachers", repr(how), f"one of {', '.join(HOWS)}")
    shapes = {jnp.shape(z) for z in logits}
    if len(shapes) != 1:
        raise BadInput("logits of the teachers", f"shapes {sorted(shapes)}", "one shape for all")
    stacked = jnp.stack([jnp.asarray(z) for z in logits])
    stacked = stacked.astype(jnp.promote_types(stacked.dtype, jnp.float32))  # squares of float16
    if how == "equal_norm":
        measured = stacked if by is None else jnp.stack([jnp.asarray(z) for z in by])
        axes = tuple(range(1, measured.ndim))
        norms = jnp.sqrt(jnp.sum(jnp.square(measured), axis=axes))
        norms = norms.reshape(-1, *(1,) * (stacked.ndim - 1))
        stacked = stacked * (jnp.mean(norms) / jnp.where(norms > 0, norms, 1))
    return jnp.mean(stacked, axis=0)
