"""The augmentation of IDC (Kim et al., ICML 2022), which NCFM uses: several operations a call.

DSA applies one operation of its strategy. Here a call applies all of these that the strategy names,
in this order; parameters are those of DSA's operations (``augment/dsa.py``):

  pad      always: a shift by up to an eighth of the side, zero outside;
  flip     with chance 1/2;
  color    always: brightness, saturation and contrast;
  one of   crop, scale and rotate, drawn for the whole batch;
  cutout   always.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.augment import dsa
from jdd.augment.strategy import parse

OPS = ("pad", *dsa.OPS)
ONE_OF = ("crop", "scale", "rotate")
_ORDER = ("pad", "flip", "color", "one", "cutout")


def names(strategy: str, where: str = "config.augment") -> tuple[str, ...]:
    """Return the operations of a strategy (``strategy.parse``); ``where`` names it in errors."""
    return parse(strategy, OPS, where)


def _chosen(strategy: str) -> str:
    """Return the operations of which one is applied, as a strategy of DSA."""
    return "_".join(name for name in names(strategy) if name in ONE_OF)


def draw_op(key: jax.Array, strategy: str) -> jax.Array:
    """Draw which of crop, scale and rotate is applied: its place among those named, int32."""
    return dsa.draw_op(key, _chosen(strategy))


def apply(
    op: jax.Array | int,
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
) -> jax.Array:
    """Apply the operations of the strategy, with parameters drawn from ``key``.

    Args:
      op: from ``draw_op``; a ``lax.switch`` on it alone.
      key: PRNG key of the parameters.
      images: [n, h, w, c], normalised.
      strategy: operations joined by ``_``; "" or "none" returns the images as they are.
      siamese: one draw for all images instead of one per image.
      align_corners: as for ``dsa.apply``.

    Returns:
      [n, h, w, c].
    """
    named = names(strategy)
    for at, name in enumerate(_ORDER):
        own = jax.random.fold_in(key, at)
        if name == "one":
            images = dsa.apply(op, own, images, _chosen(strategy), siamese, align_corners)
        elif name in named:
            # A shift by an eighth is DSA's crop.
            alone = "crop" if name == "pad" else name
            images = dsa.apply(0, own, images, alone, siamese, align_corners)
    return images


def siamese(key: jax.Array, images: jax.Array, strategy: str, align_corners: bool) -> jax.Array:
    """Augment all images alike: equal keys give equal draws, whatever the number of images."""
    chosen, own = jax.random.split(key)
    op = draw_op(chosen, strategy)
    return jnp.asarray(apply(op, own, images, strategy, True, align_corners))
