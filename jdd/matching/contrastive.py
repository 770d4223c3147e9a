"""Contrastive losses of two towers, on similarities l_ij = cos(image_i, text_j) / tau.

``S`` says how alike pair i's image and pair j's text ought to be; the identity where each image
has its own text alone.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_EPS = 1e-6


def similarity(w: jax.Array, left: jax.Array, right: jax.Array, alpha: float) -> jax.Array:
    """Return S = diag(w) + (alpha / r) L R^T, ``[n, n]``.

    Args:
      w: ``[n]``.
      left, right: ``[n, r]``; r of 0 leaves the diagonal alone.

    Source: LoRS (Xu et al., ICML 2024), section 3.
    """
    own = jnp.diag(w)
    rank = left.shape[1]
    return own + (alpha / rank) * left @ right.T if rank else own


def nce(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the extended InfoNCE loss, in nats.

        -1/2 [mean_i sum_j S_ij log softmax_j(l_ij) + mean_j sum_i S_ij log softmax_i(l_ij)]

    Args:
      logits: ``[n, n]``, images by texts.
      target: S, ``[n, n]``.
    """
    rows = jnp.sum(target * jax.nn.log_softmax(logits, axis=1), axis=1)
    columns = jnp.sum(target * jax.nn.log_softmax(logits, axis=0), axis=0)
    return -0.5 * (jnp.mean(rows) + jnp.mean(columns))


def bce(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the binary cross-entropy of all cells, in nats.

        mean_ij [-S_ij log s(l_ij) - (1 - S_ij) log(1 - s(l_ij))],  s the sigmoid

    Args:
      logits: ``[n, n]``, images by texts.
      target: S, ``[n, n]``.
    """
    on, off = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -jnp.mean(target * on + (1 - target) * off)


def weighted_bce(logits: jax.Array, target: jax.Array) -> jax.Array:
    """Return the binary cross-entropy of all cells, positive and negative ones weighing the same.

        b_ij = -S_ij log(s(l_ij) + e) - (1 - S_ij) log(1 - s(l_ij) + e),  P = {S > 1/2}
        1/2 [sum_P b / (|P| + e) + sum_not-P b / (|not P| + e)],  s the sigmoid, e = 1e-6

    P is not differentiated through.

    Args:
      logits: ``[n, n]``, images by texts.
      target: S, ``[n, n]``.

    Source: LoRS (Xu et al., ICML 2024), section 3.
    """
    p = jax.nn.sigmoid(logits)
    cells = -target * jnp.log(p + _EPS) - (1 - target) * jnp.log(1 - p + _EPS)
    positive = jax.lax.stop_gradient(target > 0.5).astype(cells.dtype)
    parts = [jnp.sum(m * cells) / (jnp.sum(m) + _EPS) for m in (positive, 1 - positive)]
    return 0.5 * (parts[0] + parts[1])


# Losses of the similarities of pairs by their names in a recipe.
LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "nce": nce,
    "bce": bce,
    "wbce": weighted_bce,
}
