"""Mapping of a function over independent items (experts, evaluation nets), over all devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from jdd.parallel import over_devices
from jdd.parallel.devices import (
    join,
    memory_only,
    once,
    pad,
    place,
    split,
    temporaries,
    threads,
)

Tree = Any


def spread(
    fn: Callable[..., Tree],
    in_axes: Sequence[int | str | None],
    devices: Sequence[jax.Device],
    together: bool = False,
) -> Callable[..., Tree]:
    """Return ``fn`` compiled and mapped over the items on axis 0 of some of its arguments.

    One program over devices (``over_devices.py``); within a device a loop over items, or vmap if
    ``together``. On a single CPU device items run concurrently, one thread each, so that small nets
    use all cores too. The results of one device stay on it; those of several are host arrays.

    Args:
      fn: the function of one item.
      in_axes: for each argument 0 (one slice per item), "device" (axis 0 has one slice per device,
        shared by that device's items) or None (shared by all).
      devices: the devices to use.
      together: vmap over the items of a device instead of looping.
    """
    if len(devices) == 1 and not together and devices[0].platform == "cpu":
        return _SideBySide(fn, in_axes)
    inner = [0 if axis == 0 else None for axis in in_axes]
    mapped = jax.vmap(fn, in_axes=tuple(inner)) if together else _in_turn(fn, inner)
    if len(devices) > 1:
        return _across(mapped, in_axes, devices)

    @jax.jit
    def alone(*args: Tree) -> Tree:
        pairs = zip(args, in_axes, strict=True)
        return mapped(*(_slice(a, 0) if axis == "device" else a for a, axis in pairs))

    return alone


def _across(
    mapped: Callable[..., Tree], in_axes: Sequence[int | str | None], devices: Sequence[jax.Device]
) -> Callable[..., Tree]:
    """Return ``mapped`` over equal parts of the items, one part per device."""
    own = [axis is not None for axis in in_axes]
    across = over_devices.items(lambda args: mapped(*args), own, devices)
    replicated = once(lambda tree: place(tree, devices, False))

    def call(*args: Tree) -> Tree:
        length = _length(args, [0 if axis == 0 else None for axis in in_axes])
        to = -(-length // len(devices)) * len(devices)
        ready = []
        for at, (a, axis) in enumerate(zip(args, in_axes, strict=True)):
            if axis is None:
                ready.append(replicated(at, a))
            else:
                mine = split(pad(a, to), len(devices)) if axis == 0 else a
                ready.append(place(mine, devices, True))
        return join(across(tuple(ready)), length)

    return call


def _in_turn(fn: Callable[..., Tree], in_axes: Sequence[int | None]) -> Callable[..., Tree]:
    """Return a function equal to ``jax.vmap(fn)`` that loops over the items."""

    def mapped(*args: Tree) -> Tree:
        def one(items: list[Tree]) -> Tree:
            left = iter(items)
            return fn(
                *(a if axis is None else next(left) for a, axis in zip(args, in_axes, strict=True))
            )

        return jax.lax.map(one, [a for a, axis in zip(args, in_axes, strict=True) if axis == 0])

    return mapped


def _length(args: Sequence[Tree], in_axes: Sequence[int | None]) -> int:
    mapped = [a for a, axis in zip(args, in_axes, strict=True) if axis is not None]
    return jax.tree.leaves(mapped)[0].shape[0]


def _slice(tree: Tree, i: int) -> Tree:
    return jax.tree.map(lambda x: x[i], tree)


class _SideBySide:
    """Equal to ``jax.vmap(fn)``: one call of a program per item, as many at a time as cores."""

    def __init__(self, fn: Callable[..., Tree], in_axes: Sequence[int | str | None]):
        self._one = jax.jit(fn)
        self._in_axes = in_axes
        self._programs: dict[Any, Any] = {}

    def __call__(self, *args: Tree) -> Tree:
        # Compiled and sliced here: other threads do not have this thread's jax settings.
        args = jax.tree.map(jnp.asarray, args)
        program, length = self._program(args), self._length(args)
        items = [self._item(args, i) for i in range(length)]
        with ThreadPoolExecutor(threads(length)) as pool:
            results = list(pool.map(lambda item: jax.block_until_ready(program(*item)), items))
        return jax.tree.map(lambda *x: jnp.stack(x), *results)

    def planned(self, *args: Tree) -> int:
        """Return the bytes of temporaries of the concurrent calls; shapes suffice as arguments."""
        item = jax.eval_shape(lambda *a: self._item(a, 0), *args)
        known = self._programs.get(self._kind(item))
        program = known or memory_only(self._one.lower(*item))
        return temporaries(program) * threads(self._length(args))

    def _program(self, args: Sequence[Tree]) -> Any:
        item = self._item(args, 0)
        kind = self._kind(item)
        if kind not in self._programs:
            self._programs[kind] = self._one.lower(*item).compile()
        return self._programs[kind]

    def _kind(self, item: Sequence[Tree]) -> Any:
        leaves, tree = jax.tree.flatten(item)
        # Precision is no argument of a program, so it is part of the key of a compiled one.
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        return (tree, precision, *((x.shape, x.dtype) for x in leaves))

    def _item(self, args: Sequence[Tree], i: int) -> list[Tree]:
        at = {0: i, "device": 0}
        pairs = zip(args, self._in_axes, strict=True)
        return [a if axis is None else _slice(a, at[axis]) for a, axis in pairs]

    def _length(self, args: Sequence[Tree]) -> int:
        return _length(args, [0 if axis == 0 else None for axis in self._in_axes])


def planned(call: Any, *args: Tree) -> int:
    """Return the bytes of temporaries planned for a call of a ``spread`` function on one device.

    It is compiled and does not run: shapes (``jax.ShapeDtypeStruct``) suffice as arguments.
    """
    if isinstance(call, _SideBySide):
        return call.planned(*args)
    return temporaries(memory_only(call.lower(*args)))
