"""One training whose batches several devices share: a program over all of them, not one each.

XLA splits the program by where its arrays lie: what is computed of images is split as they are,
gradients and batch statistics meet where they are summed, all else is done by every device alike.
So batch norm has the statistics of the whole batch, and N devices give what 1 gives, to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jdd.parallel.devices import once, sharding

Tree = Any


def shared_out(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Split arrays along axis 0 over devices, inside a program; of less than two: as they are."""
    if len(devices) < 2:
        return tree
    place = sharding(devices, True)
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, place), tree)


def everywhere(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Lay a tree's arrays whole on each of some devices; of less than two: where arrays lie."""
    if len(devices) < 2:
        return jax.tree.map(jnp.asarray, tree)
    return jax.device_put(tree, sharding(devices, False))


def over_batch(
    fn: Callable[..., Tree], items: Sequence[bool], devices: Sequence[jax.Device]
) -> Callable[..., Tree]:
    """Return ``fn`` compiled for a single item, as a program over all ``devices``.

    Arguments and results lie on every device; ``fn`` says by ``shared_out`` what they split.

    Args:
      items: for each argument, whether the item is its only slice on axis 0, as in the results.
    """
    whole = sharding(devices, False)

    def one(*args: Tree) -> Tree:
        own = [
            jax.tree.map(lambda x: x[0], a) if item else a
            for a, item in zip(args, items, strict=True)
        ]
        return jax.tree.map(lambda x: x[None], fn(*own))

    program = jax.jit(one, out_shardings=whole)
    kept = once(lambda tree: jax.device_put(tree, whole))

    def call(*args: Tree) -> Tree:
        pairs = enumerate(zip(args, items, strict=True))
        return program(
            *(jax.device_put(a, whole) if item else kept(i, a) for i, (a, item) in pairs)
        )

    return call
