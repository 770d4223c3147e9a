"""Many devices: the only file that calls pmap.

Work that is a list of equal items (experts, evaluation nets, expert segments) is split over the
devices; what all items share is replicated. A list that does not divide is padded with copies of
its last item, whose results are dropped (or weigh nothing in a mean).
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.errors import BadInput

Tree = Any
TOGETHER = 1 << 30  # bytes of temporaries of gradients that run side by side on a CPU


def pick(count: int = 0) -> list[jax.Device]:
    """Return the first ``count`` local devices (0: all).

    Raises:
      BadInput: more are asked for than there are.
    """
    devices = jax.local_devices()
    if count > len(devices):
        raise BadInput("config.devices", f"{count}", f"0 (all) to {len(devices)} on this machine")
    return devices[: count or None]


def _pad(tree: Tree, to: int) -> Tree:
    def grow(x: Any) -> Any:
        missing, np_like = to - x.shape[0], np if isinstance(x, np.ndarray) else jnp
        return np_like.concatenate([x, np_like.repeat(x[-1:], missing, 0)]) if missing else x

    return jax.tree.map(grow, tree)


def _split(tree: Tree, parts: int) -> Tree:
    return jax.tree.map(lambda x: x.reshape(parts, x.shape[0] // parts, *x.shape[1:]), tree)


def _join(tree: Tree, length: int) -> Tree:
    # On the host: reshaping what lies across devices is a program over all of them for every array,
    # and on simulated devices such programs can wait for each other for ever.
    return jax.tree.map(
        lambda x: np.asarray(x).reshape(-1, *x.shape[2:])[:length], jax.device_get(tree)
    )


def _length(args: Sequence[Tree], in_axes: Sequence[int | None]) -> int:
    mapped = [a for a, axis in zip(args, in_axes, strict=True) if axis is not None]
    return jax.tree.leaves(mapped)[0].shape[0]


def spread(
    fn: Callable[..., Tree],
    in_axes: Sequence[int | str | None],
    devices: Sequence[jax.Device],
    together: bool | None = None,
) -> Callable[..., Tree]:
    """Return ``fn`` compiled and mapped over the items on axis 0 of some of its arguments.

    pmap across devices; within a device vmap, or one item after another unless ``together``, which
    by default they are but on a CPU: there nets share nothing but the caches. On a lone CPU such
    items run side by side, a thread each, so that small nets too use all cores. An
    argument's entry in ``in_axes`` is 0 (one slice an
    item), "device" (axis 0 has one slice a device, shared by that device's items) or None (shared
    by all). On one device the results stay there; from several they come as host arrays.
    """

    together = devices[0].platform != "cpu" if together is None else together

    def pairs(args: Sequence[Tree]) -> list[tuple[Tree, int | str | None]]:
        return list(zip(args, in_axes, strict=True))

    inner = [0 if axis == 0 else None for axis in in_axes]
    mapped = jax.vmap(fn, in_axes=tuple(inner)) if together else _in_turn(fn, inner)
    if len(devices) == 1 and not together and devices[0].platform == "cpu":
        return _SideBySide(fn, in_axes)
    if len(devices) == 1:

        @jax.jit
        def alone(*args: Tree) -> Tree:
            return mapped(*(_slice(a, 0) if axis == "device" else a for a, axis in pairs(args)))

        return alone
    outer = [None if axis is None else 0 for axis in in_axes]
    across = jax.pmap(mapped, in_axes=tuple(outer), devices=list(devices))
    lay = _layout(devices)
    shared: dict[int, tuple[Tree, Tree]] = {}

    def replicated(place: int, tree: Tree) -> Tree:
        # The training images come with every call: they travel to the devices once.
        if place not in shared or shared[place][0] is not tree:
            shared[place] = (tree, lay(tree, False))
        return shared[place][1]

    def call(*args: Tree) -> Tree:
        length = _length(args, inner)
        to = -(-length // len(devices)) * len(devices)
        ready = []
        for place, (a, axis) in enumerate(pairs(args)):
            if axis is None:
                ready.append(replicated(place, a))
            else:
                ready.append(lay(_split(_pad(a, to), len(devices)) if axis == 0 else a, True))
        return _join(across(*ready), length)

    return call


def _in_turn(fn: Callable[..., Tree], in_axes: Sequence[int | None]) -> Callable[..., Tree]:
    """Return what ``jax.vmap`` computes, one item after another."""

    def mapped(*args: Tree) -> Tree:
        def one(items: list[Tree]) -> Tree:
            left = iter(items)
            return fn(
                *(a if axis is None else next(left) for a, axis in zip(args, in_axes, strict=True))
            )

        return jax.lax.map(one, [a for a, axis in zip(args, in_axes, strict=True) if axis == 0])

    return mapped


def _slice(tree: Tree, i: int) -> Tree:
    return jax.tree.map(lambda x: x[i], tree)


def threads(items: int) -> int:
    """Return how many of ``items`` run at a time on a lone CPU: as many as there are cores."""
    may = getattr(os, "sched_getaffinity", None)  # not on macOS
    return min(items, len(may(0)) if may else os.cpu_count() or 1)


class _SideBySide:
    """What ``jax.vmap`` computes, an item a call of one program, as many calls as cores."""

    def __init__(self, fn: Callable[..., Tree], in_axes: Sequence[int | str | None]):
        self._one = jax.jit(fn)
        self._in_axes = in_axes
        self._programs: dict[Any, Any] = {}

    def __call__(self, *args: Tree) -> Tree:
        # Compiled and sliced here: a thread of its own knows nothing of this one's jax settings.
        args = jax.tree.map(jnp.asarray, args)
        program, length = self._program(args), self._length(args)
        items = [self._item(args, i) for i in range(length)]
        with ThreadPoolExecutor(threads(length)) as pool:
            results = list(pool.map(lambda item: jax.block_until_ready(program(*item)), items))
        return jax.tree.map(lambda *x: jnp.stack(x), *results)

    def planned(self, *args: Tree) -> int:
        """Return the bytes of temporaries of the calls that run at a time."""
        args = jax.tree.map(jnp.asarray, args)
        return temporaries(self._program(args)) * threads(self._length(args))

    def _program(self, args: Sequence[Tree]) -> Any:
        item = self._item(args, 0)
        leaves, tree = jax.tree.flatten(item)
        # What is compiled by hand has to be kept apart by hand: precision is no one's argument.
        precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        kind = (tree, precision, *((x.shape, x.dtype) for x in leaves))
        if kind not in self._programs:
            self._programs[kind] = self._one.lower(*item).compile()
        return self._programs[kind]

    def _item(self, args: Sequence[Tree], i: int) -> list[Tree]:
        at = {0: i, "device": 0}
        pairs = zip(args, self._in_axes, strict=True)
        return [a if axis is None else _slice(a, at[axis]) for a, axis in pairs]

    def _length(self, args: Sequence[Tree]) -> int:
        return _length(args, [0 if axis == 0 else None for axis in self._in_axes])


def planned(call: Any, *args: Tree) -> int:
    """Return the bytes of temporaries planned for a call that ``spread`` made for one device."""
    if isinstance(call, _SideBySide):
        return call.planned(*args)
    return temporaries(call.lower(*args).compile())


def _layout(devices: Sequence[jax.Device]) -> Callable[[Tree, bool], Tree]:
    """Return ``f(tree, split)`` that lays arrays out over devices as pmap wants to find them."""
    mesh = jax.sharding.Mesh(np.asarray(devices), ("devices",))
    spec = jax.sharding.PartitionSpec
    places = {
        True: jax.sharding.NamedSharding(mesh, spec("devices")),
        False: jax.sharding.NamedSharding(mesh, spec()),
    }
    return lambda tree, split: jax.device_put(tree, places[split])


class MeanGradient:
    """``f(variables, aux, batch, keys) -> ((loss, extra), gradient)``, means over items.

    ``batch`` and ``keys`` have the items on axis 0; ``objective(variables, aux, item, key)``
    returns ``(loss, extra)``. Within a device the items run one after another, on a lone CPU as
    many at a time as there are cores and ``TOGETHER`` bytes hold, so that memory does not grow with
    their number; across devices the sums meet in one psum. 1 device and N devices agree to rounding
    error. ``temporaries`` is what XLA plans for the programs in use at a time, in bytes.
    """

    def __init__(self, objective: Callable[..., Any], devices: Sequence[jax.Device]):
        self._value_and_grad = jax.value_and_grad(objective, has_aux=True)
        self._devices = list(devices)
        self._programs: dict[int, Any] = {}
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self.temporaries = 0

    def __call__(self, variables: Tree, aux: Tree, batch: Tree, keys: Tree) -> Tree:
        items = keys.shape[0]
        use = min(len(self._devices), items)  # an idle device beats one that repeats another's work
        if use == 1 and items > 1 and self._devices[0].platform == "cpu":
            return self._side_by_side((variables, aux), batch, keys)
        to = -(-items // use) * use
        weight = (jnp.arange(to) < items).astype(jnp.float32)
        shared, split = (variables, aux), (*_pad((batch, keys), to), weight)
        if use > 1:
            lay = _layout(self._devices[:use])
            shared, split = lay(shared, False), lay(_split(split, use), True)
        if items not in self._programs:
            mapped = self._across(use) if use > 1 else jax.jit(self._mean)
            self._programs[items] = _compiled(mapped.lower(*shared, *split))
            self.temporaries = temporaries(self._programs[items])
        return self._programs[items](*shared, *split)

    def _side_by_side(self, shared: tuple[Tree, Tree], batch: Tree, keys: Tree) -> Tree:
        """Return the means by one program an item, whose serial parts so fill each other's gaps."""
        items = keys.shape[0]
        pieces = [(_slice(batch, i), keys[i]) for i in range(items)]
        if items not in self._programs:
            lowered = jax.jit(self._value_and_grad).lower(*shared, *pieces[0])
            self._programs[items] = _compiled(lowered)
        program = self._programs[items]
        one = temporaries(program)
        at_once = min(threads(items), max(1, TOGETHER // max(one, 1)))
        self.temporaries = one * at_once
        # The same threads every time: memory that is free again belongs to the thread that had it.
        if at_once not in self._pools:
            self._pools[at_once] = ThreadPoolExecutor(at_once)
        pool = self._pools[at_once]
        calls = [
            pool.submit(lambda p: jax.block_until_ready(program(*shared, *p)), piece)
            for piece in pieces
        ]
        try:  # in their order, whoever is done first
            total = functools.reduce(_add, (call.result() for call in calls))
        finally:
            for call in calls:
                call.cancel()
        return _divided(total, jnp.asarray(items))

    @property
    def programs(self) -> int:
        """How many programs were compiled: one for each number of items seen."""
        return len(self._programs)

    def _across(self, use: int) -> Any:
        return jax.pmap(
            functools.partial(self._mean, axis="devices"),
            axis_name="devices",
            in_axes=(None, None, 0, 0, 0),
            out_axes=None,
            devices=self._devices[:use],
        )

    def _mean(
        self, variables: Tree, aux: Tree, batch: Tree, keys: Tree, weight: Tree, axis: str = ""
    ) -> Tree:
        def item(i: int | jax.Array) -> Tree:
            args = jax.tree.map(lambda x: x[i], (batch, keys))
            out = self._value_and_grad(variables, aux, *args)
            return jax.tree.map(lambda x: x * weight[i].astype(x.dtype), out)

        count = jnp.sum(weight)
        if weight.shape[0] > 1:
            # From zero, not from the first item's: the program of an item is compiled once.
            like = jax.eval_shape(lambda: item(0))
            sums = jax.lax.fori_loop(
                0,
                weight.shape[0],
                lambda i, s: jax.tree.map(jnp.add, s, item(i)),
                jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), like),
            )
        else:
            sums = item(0)
        if axis:
            sums, count = jax.lax.psum((sums, count), axis)
        return jax.tree.map(lambda x: x / count.astype(x.dtype), sums)


@jax.jit
def _add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


@jax.jit
def _divided(tree: Tree, count: jax.Array) -> Tree:
    return jax.tree.map(lambda x: x / count.astype(x.dtype), tree)


# The older of XLA's two CPU code generators takes two thirds of the memory to compile a meta-step,
# and its code is as fast to 10 %.
_CPU_OPTIONS = {"xla_cpu_use_fusion_emitters": False}


def _compiled(lowered: Any) -> Any:
    if jax.default_backend() != "cpu":
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
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def temporaries(compiled: Any) -> int:
    """Return the bytes of temporaries XLA plans for a compiled program (0 if it does not say)."""
    analysis = compiled.memory_analysis()
    return int(getattr(analysis, "temp_size_in_bytes", 0) or 0)
