"""Test accuracy of many nets of one architecture at once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd import parallel
from jdd.nets import Net, Output
from jdd.run.session import Session
from jdd.training import trainer

Tree = Any
BATCH = 200  # images at a time: bounds the memory of a wide ConvNet's activations


@lru_cache(maxsize=64)
def _hits(net: Net) -> Any:
    def one(variables: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
        guess = jnp.argmax(net.apply(variables, images, train=False).logits, axis=-1)
        return jnp.sum(guess == labels)

    together = trainer.light(net, BATCH)
    return parallel.spread(one, (0, None, None), jax.local_devices()[:1], together)


@lru_cache(maxsize=64)
def by_batch(net: Net) -> Net:
    """Return the net whose batch norm has the statistics of the images it is given, in tests too.

    An image's class then depends on the images tested with it.
    """

    def apply(variables: Tree, x: jax.Array, train: bool = False, taps: Any = False) -> Output:
        del train
        return net.apply(variables, x, train=True, taps=taps)

    return net._replace(apply=apply)


def padded(rows: np.ndarray, size: int, value: float = 0) -> np.ndarray:
    """Return ``rows`` [n, ...] filled up with ``value`` to ``size`` rows."""
    missing = size - len(rows)
    if not missing:
        return rows
    return np.concatenate([rows, np.full((missing, *rows.shape[1:]), value, rows.dtype)])


def accuracy(net: Net, variables: Tree, split: Any, session: Session | None = None) -> np.ndarray:
    """Return the accuracy of each net on ``split``, a fraction, ``[nets]``.

    Args:
      variables: stacked on axis 0.
      split: images ``[n, h, w, c]`` in the nets' input space, labels ``[n]``.
    """
    hits: Any = 0
    variables = jax.tree.map(jnp.asarray, variables)
    n = len(split.labels)
    for lo in range(0, n, BATCH):
        if session is not None:
            session.check()
        images, labels = split.images[lo : lo + BATCH], split.labels[lo : lo + BATCH]
        size = min(BATCH, n)  # the compiled shape; label -1 is never predicted
        # Filled up with images of the batch itself, which leave ``by_batch`` its statistics.
        if len(images) < size:
            images = images[np.arange(size) % len(images)]
        hits = hits + _hits(net)(variables, images, padded(labels, size, -1))
        if session is not None:
            hits.block_until_ready()
    return np.asarray(hits) / n
