"""CDA's curriculum: the smallest area of a crop, by step."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.errors import BadInput

KINDS = ("none", "step", "linear", "cosine")


def crop_schedule(
    step: jax.typing.ArrayLike,
    total: jax.typing.ArrayLike,
    kind: str = "cosine",
    milestone: float = 1.0,
    low: float = 0.08,
) -> jax.Array:
    """Return the smallest fraction of an image's area that a crop may have at a step.

    With r = step / (milestone total), before the milestone (r < 1):

        step    1
        linear  low + (1 - low) (1 - r)
        cosine  low + (1 - low) (1 + cos(pi r)) / 2

    and ``low`` from then on; "none" is always ``low``. Crops go from the whole image to its parts.

    Args:
      step: 0-based; may be traced.
      total: the number of steps of the recovery.
      milestone: in 0..1, the fraction of steps with the curriculum; 0 is "none".

    Raises:
      BadInput: ``kind`` is not one of ``KINDS``.

    Source: CDA (Yin & Shen, TMLR 2024), whose setting is cosine and milestone 1; its code's
    default is milestone 0, which is SRe2L.
    """
    if kind not in KINDS:
        raise BadInput("curriculum", f"{kind!r}", f"one of {', '.join(KINDS)}")
    at, end = jnp.asarray(step, float), milestone * jnp.asarray(total, float)
    ratio = at / jnp.where(end > 0, end, 1.0)
    if kind == "linear":
        part = 1 - ratio
    elif kind == "cosine":
        part = (1 + jnp.cos(jnp.pi * ratio)) / 2
    else:
        part = jnp.full_like(ratio, kind == "step")
    return jnp.where(at < end, low + (1 - low) * part, low)
