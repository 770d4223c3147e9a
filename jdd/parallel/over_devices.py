"""One program on several devices, in two forms: ``jax.pmap``, and jit with ``NamedSharding``.

    FORMS["pmap"]   jax.pmap, since JAX 0.8 a layer over jit and shard_map
    FORMS["jit"]    jit of shard_map over a mesh, arguments laid out by NamedSharding

Their results are equal up to rounding. ``FORM`` names the one in use; the day that pmap is removed
from JAX, its entry goes, and no other file. Measured: docs/speed.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax

from jdd.parallel.devices import mesh, spans

Tree = Any
Function = Callable[[tuple[Tree, ...]], Tree]
AXIS = "devices"  # the name of the axis that a function may reduce over


def items(fn: Function, own: Sequence[bool], devices: Sequence[jax.Device]) -> Any:
    """Return a program of ``fn`` on every device.

    Args:
      fn: a function of one tuple, each device's own part of the arguments.
      own: for each argument, True if its axis 0 has one slice a device, False if it is shared.
      devices: the devices to use.

    Returns:
      The program: a function of one tuple. Results have one slice a device on axis 0.
    """
    return FORMS[FORM](fn, own, devices, False)


def mean(fn: Function, own: Sequence[bool], devices: Sequence[jax.Device]) -> Any:
    """Return a program as ``items`` does, of a ``fn`` whose results are reduced over ``AXIS``.

    They are therefore equal on all devices, and returned once. Over the devices of several
    processes the form is "jit", whose arguments may be arrays over all of them.
    """
    return FORMS["jit" if spans(devices) else FORM](fn, own, devices, True)


def _pmap(fn: Function, own: Sequence[bool], devices: Sequence[jax.Device], reduced: bool) -> Any:
    # One tuple, not several arguments: if the arguments have as many leaves in total, pmap's
    # ``lower`` takes in_axes for the axes of the leaves.
    axes = tuple(0 if mine else None for mine in own)
    out = None if reduced else 0
    return jax.pmap(fn, AXIS, in_axes=(axes,), out_axes=out, devices=list(devices))


def _jit(fn: Function, own: Sequence[bool], devices: Sequence[jax.Device], reduced: bool) -> Any:
    shared, sliced = jax.sharding.PartitionSpec(), jax.sharding.PartitionSpec(AXIS)

    def one(args: tuple[Tree, ...]) -> Tree:
        pairs = zip(args, own, strict=True)
        found = fn(tuple(jax.tree.map(lambda x: x[0], a) if mine else a for a, mine in pairs))
        return found if reduced else jax.tree.map(lambda x: x[None], found)

    over = jax.shard_map(
        one,
        mesh=mesh(devices),
        in_specs=(tuple(sliced if mine else shared for mine in own),),
        out_specs=shared if reduced else sliced,
        check_vma=False,  # that results are equal on all devices follows from fn's reduction
    )
    return jax.jit(over)


FORMS = {"pmap": _pmap, "jit": _jit}
FORM = "pmap"
