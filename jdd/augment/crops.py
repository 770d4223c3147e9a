"""Crops and flips for training nets on images, as strategies: ``pad_flip``, ``rrc_flip``, ``flip``.

pad   a crop of the image's size from the image padded by an eighth of its height (4 of 32);
rrc   a random area of 8 to 100 % and ratio of 3/4 to 4/3, resized to the image's size;
flip  mirrored with p = 1/2.

Unlike in DSA, every operation of the strategy is applied, with one draw per image (see ``views``).
Padding is zero in the space of the images, which is the mean pixel of normalised ones. PyTorch's
recipes pad before they normalise, with black, ``(0 - mean) / std``: those need ``views.apply`` with
its ``border``.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jdd.augment import views
from jdd.augment.strategy import parse
from jdd.errors import BadInput

OPS = ("pad", "rrc", "flip")


def names(strategy: str) -> tuple[str, ...]:
    """Return the operations of a strategy (``strategy.parse``).

    Raises:
      BadInput: an unknown operation, one named twice, or two crops.
    """
    found = parse(strategy, OPS, "augment.strategy")
    if "pad" in found and "rrc" in found:
        raise BadInput("augment.strategy", f"two crops in {strategy!r}", "pad or rrc")
    return found


def draw_op(key: jax.Array, strategy: str) -> jax.Array:
    """Return 0: every operation is applied."""
    del key, strategy
    return jnp.zeros((), jnp.int32)


def spec_of(strategy: str, height: int, siamese: bool = False) -> views.Spec:
    """Return the ``views.Spec`` of a strategy for images of ``height`` pixels."""
    found = names(strategy)
    crop = "padded" if "pad" in found else "resized" if "rrc" in found else "none"
    flip = 0.5 if "flip" in found else 0.0
    return views.Spec(crop=crop, pad=max(1, height // 8), flip=flip, shared=siamese)


def apply(
    op: jax.Array | int,
    key: jax.Array,
    images: jax.Array,
    strategy: str,
    siamese: bool = False,
    align_corners: bool = True,
) -> jax.Array:
    """Apply the strategy's operations with parameters drawn from ``key``.

    Args:
      op: from ``draw_op``; has no effect.
      images: [n, h, w, c], normalised or whitened.
      strategy: operations joined by ``_``; "" or "none" returns the images as they are.
      siamese: one draw for all images instead of one per image.
      align_corners: has no effect: every operation is defined in pixels.

    Returns:
      [n, h, w, c].
    """
    del op, align_corners
    if not names(strategy):
        return images
    spec = spec_of(strategy, images.shape[1], siamese)
    return views.reframe(images, views.draw(key, len(images), images.shape[1:], spec))
