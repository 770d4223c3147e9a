"""Devices and what is laid out over them; the compiler's options and what it plans."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.errors import BadInput

Tree = Any
UNTOLD = 8 << 30  # bytes of a device that does not say what it has


def pick(count: int = 0) -> list[jax.Device]:
    """Return the first ``count`` local devices (0: all).

    Raises:
      BadInput: more are asked for than there are.
    """
    _few_heaps()  # before JAX starts its threads
    devices = jax.local_devices()
    if count > len(devices):
        raise BadInput("config.devices", f"{count}", f"0 (all) to {len(devices)} on this machine")
    return devices[: count or None]


def memory(devices: Sequence[jax.Device]) -> int:
    """Return the bytes JAX may take on each of ``devices``; ``UNTOLD`` where one does not say."""
    told = [int((device.memory_stats() or {}).get("bytes_limit", 0)) for device in devices]
    return min(limit if limit > 0 else UNTOLD for limit in told)


def threads(items: int) -> int:
    """Return how many of ``items`` run at a time on a lone CPU: as many as there are cores."""
    may = getattr(os, "sched_getaffinity", None)  # not on macOS
    return min(items, len(may(0)) if may else os.cpu_count() or 1)


def pad(tree: Tree, to: int) -> Tree:
    def grow(x: Any) -> Any:
        missing, np_like = to - x.shape[0], np if isinstance(x, np.ndarray) else jnp
        return np_like.concatenate([x, np_like.repeat(x[-1:], missing, 0)]) if missing else x

    return jax.tree.map(grow, tree)


def split(tree: Tree, parts: int) -> Tree:
    return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), tree)


def join(tree: Tree, length: int) -> Tree:
    # On the host: reshaping what lies across devices is a program over all of them for every array,
    # and on simulated devices such programs can wait for each other for ever.
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:length], jax.device_get(tree)
    )


def layout(devices: Sequence[jax.Device]) -> Callable[[Tree, bool], Tree]:
    """Return ``f(tree, split)`` that lays arrays out over devices as pmap wants to find them."""
    places = {split: sharding(devices, split) for split in (True, False)}
    return lambda tree, split: jax.device_put(tree, places[split])


def once(lay: Callable[[Tree], Tree]) -> Callable[[int, Tree], Tree]:
    """Return ``f(place, tree)``, what ``lay`` makes of a tree: done once while it stays the same.

    The training images come with every call: so they travel to the devices once.
    """
    there: dict[int, tuple[Tree, Tree]] = {}

    def laid(place: int, tree: Tree) -> Tree:
        if place not in there or there[place][0] is not tree:
            there[place] = (tree, lay(tree))
        return there[place][1]

    return laid


def sharding(devices: Sequence[jax.Device], split: bool) -> jax.sharding.NamedSharding:
    """Return how arrays lie over devices: ``split`` on axis 0, or whole on each."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("devices",))
    axes = ("devices",) if split else ()
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))


# The older of XLA's two CPU code generators takes two thirds of the memory to compile a meta-step,
# whose code is as fast to 10 %; of a derivative through Winograd's transforms it is faster by half.
_CPU_OPTIONS = {"xla_cpu_use_fusion_emitters": False}


def compiled(lowered: Any, simple: bool = False) -> Any:
    """Compile a program; ``simple``: a plain gradient, of which the newer generator's code is
    faster, by 16 % for a ConvNet.
    """
    if simple or jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        program = lowered.compile(compiler_options=_CPU_OPTIONS)
        _trim()
        return program
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return lowered.compile()  # a JAX that has only one of them


def _trim() -> None:
    """Give back what the compiler has left behind: 100 MB a net, which glibc would keep."""
    _glibc("malloc_trim", 0)


_ARENA_MAX = -8  # glibc's name for the setting


@functools.cache
def _few_heaps() -> None:
    """Have threads share a heap for every four cores, where the person has not said otherwise.

    Freed memory stays with the heap it came from, and glibc has up to eight a core, one a thread of
    the compiler's: on 2 cores they held 115 MB more than they used while a step of DC was compiled.
    Threads that have a heap keep it, and where there are many already glibc does not listen.
    """
    said = "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if not said:
        _glibc("mallopt", _ARENA_MAX, max(1, (os.cpu_count() or 1) // 4))


def _glibc(name: str, *args: int) -> None:
    """Call a function of glibc's, where it is what Python runs on."""
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), name, None)
        if found is not None:
            found(*args)


def temporaries(compiled: Any) -> int:
    """Return the bytes of temporaries XLA plans for a compiled program (0 if it does not say)."""
    analysis = compiled.memory_analysis()
    return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)
