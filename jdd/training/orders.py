"""The order of a set's images in training: shuffled, balanced by class, or drawn class by class."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Keys(NamedTuple):
    """Keys of one net: ``own`` for its shuffles and draws, ``ops`` shared by nets trained together.

    The DSA operation is drawn from ``ops``: nets in one vmap then run one operation per step
    instead of all six. Each net's own sequence is distributed as published; parameters, shuffles
    and initial weights remain independent.
    """

    own: jax.Array
    ops: jax.Array


def shuffle(keys: Keys, epoch: jax.Array | int, n: int) -> jax.Array:
    """Return the order of ``n`` images in an epoch: a permutation ``[n]``."""
    return jax.random.permutation(epoch_key(keys, epoch), n)


def balanced(keys: Keys, epoch: jax.Array | int, labels: jax.Array, classes: int) -> jax.Array:
    """Return the rows of an epoch with as many images of each class: ``[n]``, shuffled.

        slot i, 0 <= i < n:  class c = p(i mod C),  its image number (i // C) mod n_c

    p is a random order of the C classes that have images, and the n_c images of a class are in a
    random order: counts of classes differ by at most one, those of a class's images too.

    Args:
      labels: int ``[n]``, each in 0..classes-1.
    """
    n = len(labels)
    which, within, mix = jax.random.split(epoch_key(keys, epoch), 3)
    by_class = jnp.lexsort((jax.random.uniform(within, (n,)), labels))
    sizes = jnp.bincount(labels, length=classes)
    first = jnp.cumsum(sizes) - sizes
    # Classes without images come last and are not drawn.
    order = jnp.argsort(jax.random.uniform(which, (classes,)) + (sizes == 0))
    slot, present = jnp.arange(n), jnp.sum(sizes > 0)
    own = order[slot % present]
    rows = by_class[first[own] + (slot // present) % sizes[own]]
    return jax.random.permutation(mix, rows)


def epoch_key(keys: Keys, epoch: jax.Array | int) -> jax.Array:
    """Return the key of an epoch's order."""
    return jax.random.fold_in(jax.random.fold_in(keys.own, 0), epoch)


def classwise_rows(
    key: jax.Array, classes: int, ipc: int, per_class: int, classes_per_step: int = 0
) -> jax.Array:
    """Draw ``per_class`` rows of each of ``classes_per_step`` classes (0: all), class-major.

    Neither a class nor an image is drawn twice; ``[per_class * classes_per_step]``.
    """
    which, within = jax.random.split(key)
    chosen = jax.random.permutation(which, classes)[: classes_per_step or classes]
    order = jnp.argsort(jax.random.uniform(within, (len(chosen), ipc)), axis=1)
    return (chosen[:, None] * ipc + order[:, :per_class]).ravel()
