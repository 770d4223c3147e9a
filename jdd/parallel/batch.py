"""Data parallelism: one training with its batches split over several devices, as one program.

XLA partitions the program by the layout of its arrays: computations on images are split as they
are, gradients and batch statistics are reduced across devices, everything else is replicated. So
batch norm has the statistics of the whole batch, and N devices agree with 1 up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdd.parallel.devices import once, sharding

Tree = Any


def shared_out(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Split arrays along axis 0 over devices, inside a program; unchanged for fewer than two."""
    if len(devices) < 2:
        return tree
    place = sharding(devices, True)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, place), tree)


def everywhere(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Replicate a tree's arrays on each of some devices; unchanged for fewer than two."""
    if len(devices) < 2:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, sharding(devices, False))


def over_batch(
    fn: Callable[..., Tree], items: Sequence[bool], devices: Sequence[jax.Device]
) -> Callable[..., Tree]:
    """Return ``fn`` compiled for a single item, as a program over all ``devices``.

    Arguments and results are replicated; ``fn`` marks what is split by ``shared_out``.

    Args:
      fn: the function of one item.
      items: for each argument, True if axis 0 has the item as its only slice, as in the results.
      devices: the devices to use.
    """
    whole = sharding(devices, False)

    def one(*args: Tree) -> Tree:
        own = [
            jax.tree.map(lambda x: x[0], a) if item else a
            for a, item in zip(args, items, strict=True)
        ]
        return jax.tree.map(lambda x: x[None], fn(*own))

    program = jax.jit(one, out_shardings=whole)
    replicated = once(lambda tree: jax.device_put(tree, whole))

    def call(*args: Tree) -> Tree:
        pairs = enumerate(zip(args, items, strict=True))
        return program(
            *(jax.device_put(a, whole) if item else replicated(i, a) for i, (a, item) in pairs)
        )

    return call
