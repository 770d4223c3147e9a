"""Devices, layouts of arrays over them, compiler options and planned memory."""

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
ASSUMED = 8 << 30  # bytes assumed for a device that does not report its memory


def pick(count: int = 0) -> list[jax.Device]:
    """Return the first ``count`` local devices (0: all).

    Raises:
      BadInput: ``count`` exceeds the number of devices.
    """
    _few_heaps()  # before JAX starts its threads
    devices = jax.local_devices()
    if count > len(devices):
        raise BadInput("config.devices", f"{count}", f"0 (all) to {len(devices)} on this machine")
    return devices[: count or None]


def per_process(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Return the devices of each process that has some of ``devices``, process 0 first."""
    found: dict[int, list[jax.Device]] = {}
    for one in sorted(devices, key=lambda one: (one.process_index, one.id)):
        found.setdefault(one.process_index, []).append(one)
    return list(found.values())


def spans(devices: Sequence[jax.Device]) -> bool:
    """Return whether some of ``devices`` belong to another process."""
    return any(one.process_index != jax.process_index() for one in devices)


def memory(devices: Sequence[jax.Device]) -> int:
    """Return the bytes JAX may use on each of ``devices``; ``ASSUMED`` where not reported."""
    limits = [int((device.memory_stats() or {}).get("bytes_limit", 0)) for device in devices]
    return min(limit if limit > 0 else ASSUMED for limit in limits)


def threads(items: int) -> int:
    """Return how many of ``items`` run at a time on a single CPU device: at most one per core."""
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
    # On the host: reshaping arrays across devices runs one program over all of them per array, and
    # on simulated devices such programs can deadlock.
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:length], jax.device_get(tree)
    )


def place(tree: Tree, devices: Sequence[jax.Device], split: bool) -> Tree:
    """Return arrays as a program over ``devices`` takes them: ``split`` on axis 0 or replicated."""
    return jax.device_put(tree, sharding(devices, split))


def once(lay: Callable[[Tree], Tree]) -> Callable[[int, Tree], Tree]:
    """Return ``f(place, tree) = lay(tree)``, cached per place as long as the tree is the same.

    The training images are an argument of every call: the cache transfers them only once.
    """
    there: dict[int, tuple[Tree, Tree]] = {}

    def laid(place: int, tree: Tree) -> Tree:
        if place not in there or there[place][0] is not tree:
            there[place] = (tree, lay(tree))
        return there[place][1]

    return laid


def sharding(devices: Sequence[jax.Device], split: bool) -> jax.sharding.NamedSharding:
    """Return the sharding of arrays over devices: ``split`` on axis 0, or replicated."""
    axes = mesh(devices).axis_names if split else ()
    return jax.sharding.NamedSharding(mesh(devices), jax.sharding.PartitionSpec(*axes))


def mesh(devices: Sequence[jax.Device]) -> jax.sharding.Mesh:
    """Return the mesh of some devices: one axis, ``devices``."""
    return jax.sharding.Mesh(np.asarray(devices), ("devices",))


# The older of XLA's two CPU code generators needs two thirds of the memory to compile a meta-step,
# and its code is within 10 %; for derivatives through Winograd's transforms its code is faster by
# half.
_CPU_OPTIONS = {"xla_cpu_use_fusion_emitters": False}


def compiled(lowered: Any, simple: bool = False) -> Any:
    """Compile a program; ``simple``: a plain first-order gradient, on XLA's default CPU emitter.

    Its code is faster for these, by 16 % for a ConvNet.
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
        return lowered.compile()  # a JAX version with only one code generator


# LLVM's optimiser takes two thirds of a compilation and does not change the buffers that XLA plans.
_UNOPTIMISED = {"xla_backend_optimization_level": 0}


def memory_only(lowered: Any) -> Any:
    """Compile a program that only states its memory: on a CPU without LLVM's optimiser."""
    if jax.default_backend() != "cpu":
        return lowered.compile()
    return lowered.compile(compiler_options=_UNOPTIMISED)


def _trim() -> None:
    """Return the compiler's freed memory to the system: 100 MB per net, which glibc would hold."""
    _glibc("malloc_trim", 0)


_ARENA_MAX = -8  # glibc's name for the setting


@functools.cache
def _few_heaps() -> None:
    """Limit glibc to one heap per four cores, unless the environment sets the number.

    Freed memory stays with its heap, and glibc has up to eight heaps per core, one for each thread
    of the compiler: on 2 cores they held 115 MB more than they used while a step of DC was
    compiled. The setting has no effect on threads that have a heap, nor once there are many heaps.
    """
    is_set = "MALLOC_ARENA_MAX" in os.environ or "arena_max" in os.environ.get("GLIBC_TUNABLES", "")
    if not is_set:
        _glibc("mallopt", _ARENA_MAX, max(1, (os.cpu_count() or 1) // 4))


def _glibc(name: str, *args: int) -> None:
    """Call a function of glibc; does nothing on other C libraries."""
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), name, None)
        if found is not None:
            found(*args)


def temporaries(compiled: Any) -> int:
    """Return the bytes of temporaries XLA plans for a compiled program (0 if not reported)."""
    analysis = compiled.memory_analysis()
    return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)
