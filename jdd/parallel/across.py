"""Arrays over the devices of several processes: placed, read back, sent from process 0.

Each process holds the slices of its own devices. All processes of these devices call the same
programs in the same order, each with its own slices.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.parallel import over_devices, processes
from jdd.parallel.devices import per_process, sharding

Tree = Any


def everyone(count: int = 0) -> list[jax.Device]:
    """Return the first ``count`` devices (0: all) of every process, those of process 0 first."""
    return [one for own in per_process(jax.devices()) for one in own[: count or None]]


def own(devices: Sequence[jax.Device]) -> slice:
    """Return the positions of this process's devices; they are consecutive."""
    found = [i for i, one in enumerate(devices) if one.process_index == jax.process_index()]
    return slice(found[0], found[-1] + 1) if found else slice(0, 0)


def place(tree: Tree, devices: Sequence[jax.Device], split: bool) -> Tree:
    """Return arrays over ``devices``: replicated, or ``split`` on axis 0, a slice a device.

    Args:
      tree: arrays; with ``split`` the slices of this process's devices alone.
    """
    where = sharding(devices, split)

    def placed(x: Any) -> jax.Array:
        x = _on_host(x)
        shape = (len(devices), *x.shape[1:]) if split else x.shape
        return jax.make_array_from_process_local_data(where, x, shape)

    return jax.tree.map(placed, tree)


def _on_host(x: Any) -> Any:
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
    return np.asarray(x, jax.dtypes.canonicalize_dtype(x.dtype))


def local_copy(tree: Tree) -> Tree:
    """Return this process's copy of replicated arrays, on one device of its own."""
    return jax.tree.map(lambda x: x.addressable_data(0), tree)


def broadcast(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Return process 0's values of a tree, in every process of ``devices``, bit for bit.

    Args:
      tree: arrays; in the other processes of equal structure, shapes and dtypes.
    """
    leaves, form = jax.tree.flatten(tree)
    keys = [jnp.issubdtype(x.dtype, jax.dtypes.prng_key) for x in leaves]
    values = [
        np.asarray(jax.random.key_data(x) if key else x)
        for x, key in zip(leaves, keys, strict=True)
    ]
    mine = own(devices)
    words = np.zeros((mine.stop - mine.start, -(-sum(v.nbytes for v in values) // 4)), np.uint32)
    if mine.start == 0:
        raw = b"".join(v.tobytes() for v in values)
        words.view(np.uint8)[0, : len(raw)] = np.frombuffer(raw, np.uint8)
    sent = place(words, devices, True)
    total = processes.attended(lambda: np.asarray(local_copy(_total(tuple(devices))((sent,)))))
    raw, at, found = total.tobytes(), 0, []
    for value, key in zip(values, keys, strict=True):
        new = np.frombuffer(raw, value.dtype, value.size, at).reshape(value.shape)
        found.append(jax.random.wrap_key_data(jnp.asarray(new)) if key else jnp.asarray(new))
        at += value.nbytes
    return jax.tree.unflatten(form, found)


@functools.cache
def _total(devices: tuple[jax.Device, ...]) -> Any:
    """Return the program of a sum of whole numbers over devices, all of which but one are 0."""
    total = functools.partial(jax.lax.psum, axis_name=over_devices.AXIS)
    return over_devices.mean(lambda args: total(args[0]), (True,), devices)
