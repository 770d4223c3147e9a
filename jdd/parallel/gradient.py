"""Mean loss of a step's items and its gradient, over devices, in memory constant in the items."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jdd.data.rows import Rows
from jdd.parallel import across, over_devices, processes
from jdd.parallel.devices import compiled, pad, place, spans, split, temporaries, threads
from jdd.parallel.parts import summed, zeros

Tree = Any
ROUND = 1 << 28  # bytes of images read at a time, for each device
TOGETHER = 1 << 30  # bytes of temporaries of concurrent gradients on a CPU


class MeanGradient:
    """``f(variables, aux, batch, keys) -> ((loss, extra), gradient)``, means over items.

    ``batch`` and ``keys`` have the items on axis 0; ``objective(variables, aux, item, key)``
    returns ``(loss, extra)``. Within a device the items run one after another; on a single CPU
    device as many at a time as there are cores and as fit into ``TOGETHER`` bytes. Memory does not
    grow with the number of items, nor with the size of lazy ``data.Rows`` among the leaves: on a
    single CPU device each thread reads one item; elsewhere a round has as many items as fit into
    ``ROUND`` bytes per device, at least one, and the host reads the next round meanwhile. Across
    devices the sums are reduced by one psum per round. 1 device and N devices agree up to rounding.
    Devices of several processes: each of these calls this with the same arguments, and reads and
    computes the items of its own devices.
    ``temporaries`` is the memory XLA plans for the programs in use at a time, in bytes.

    Args:
      objective: the loss of one item.
      devices: the devices to use.
      simple: see ``compiled``.
      merged: on accelerators, vmap over a device's items instead of looping.
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        devices: Sequence[jax.Device],
        simple: bool = False,
        merged: bool = False,
    ):
        self._objective = objective
        self._value_and_grad = jax.value_and_grad(objective, has_aux=True)
        self._devices, self._simple, self._merged = list(devices), simple, merged
        self._programs: dict[tuple[int, int], Any] = {}  # by devices in use, items in this process
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._placed: dict[tuple[int, int], tuple[Any, Any]] = {}
        self.temporaries = 0

    def __call__(self, variables: Tree, aux: Tree, batch: Tree, keys: Tree) -> Tree:
        items = keys.shape[0]
        use = min(len(self._devices), items)  # an idle device is better than one that repeats work
        if use == 1 and items > 1 and self._devices[0].platform == "cpu":
            return self._side_by_side((variables, aux), batch, keys)
        rounds = _rounds(batch, items, use)
        size = rounds[0].stop
        shared = (variables, aux)
        if use > 1:
            shared = self._shared(shared, use)
        total: Tree = None
        for part in rounds:
            # Read while the previous round runs; placed on the devices when that is done.
            mine = (batch, keys) if len(rounds) == 1 else _slice((batch, keys), part)
            own = self._own(mine[0], mine[1], use, -(-size // use))
            jax.block_until_ready(total)
            mean = self._round(shared, own, mine[1].shape[0], items, use)
            total = mean if total is None else _add(total, mean)
        return total

    def _shared(self, tree: Tree, use: int) -> Tree:
        """Return replicated arrays; over several processes those that are the same as before."""
        devices = self._devices[:use]
        if not spans(devices):
            return _place(tree, devices, False)
        leaves, form = jax.tree.flatten(tree)
        for i, leaf in enumerate(leaves):
            known = self._placed.get((use, i))
            if known is None or known[0] is not leaf:
                self._placed[use, i] = leaf, _place(leaf, devices, False)
        return jax.tree.unflatten(form, [self._placed[use, i][1] for i in range(len(leaves))])

    def _positions(self, use: int) -> slice:
        """Return the positions of this process's devices among the first ``use``."""
        return across.own(self._devices[:use]) if use > 1 else slice(0, 1)

    def _own(self, batch: Tree, keys: Tree, use: int, each: int) -> Tree:
        """Return batch, keys and weights of this process's items, ``each`` for a device.

        They are padded by copies of the last item, of weight 0.
        """
        count, over = keys.shape[0], self._positions(use)
        lo, hi = over.start * each, over.stop * each
        if lo or hi < count:
            batch, keys = _slice((batch, keys), slice(min(lo, count - 1), min(hi, count)))
        weight = (np.arange(lo, hi) < count).astype(np.float32)
        return (*pad((_read(batch), keys), hi - lo), weight)

    def _round(
        self, shared: tuple[Tree, Tree], own: Tree, count: int, items: int, use: int
    ) -> Tree:
        """Return the contribution of ``count`` of the ``items`` to the mean."""
        over, to = self._positions(use), own[-1].shape[0]
        if use > 1:
            own = _place(split(own, over.stop - over.start), self._devices[:use], True)
        if (use, to) not in self._programs:
            mapped = self._across(use) if use > 1 else jax.jit(self._mean)
            self._programs[use, to] = compiled(mapped.lower((*shared, *own)), self._simple)
            self.temporaries = temporaries(self._programs[use, to])
        program = self._programs[use, to]
        if use > 1 and spans(self._devices[:use]):
            mean = processes.attended(
                lambda: jax.block_until_ready(across.local_copy(program((*shared, *own))))
            )
        else:
            mean = program((*shared, *own))
        # A round of the whole batch gives the mean; others give their share of it.
        return mean if count == items else _portion(mean, *map(jnp.asarray, (count, items)))

    def _side_by_side(self, shared: tuple[Tree, Tree], batch: Tree, keys: Tree) -> Tree:
        """Return the means, one program per item: the serial parts of some overlap with others."""
        items = keys.shape[0]
        # Lazy rows are read by the thread that uses them and freed after it.
        pieces = [(_lazy(batch, i), keys[i]) for i in range(items)]
        if (1, items) not in self._programs:
            lowered = jax.jit(self._value_and_grad).lower(*shared, *_read_one(pieces[0]))
            self._programs[1, items] = compiled(lowered, self._simple)
        program = self._programs[1, items]
        one = temporaries(program)
        at_once = min(threads(items), max(1, TOGETHER // max(one, 1)))
        self.temporaries = one * at_once
        # Reused threads: freed memory stays with the thread that allocated it.
        if at_once not in self._pools:
            self._pools[at_once] = ThreadPoolExecutor(at_once)
        pool = self._pools[at_once]
        calls = [
            pool.submit(lambda p: jax.block_until_ready(program(*shared, *_read_one(p))), piece)
            for piece in pieces
        ]
        try:  # in the order of the items, not of completion
            total = functools.reduce(_add, (call.result() for call in calls))
        finally:
            for call in calls:
                call.cancel()
        return _portion(total, *map(jnp.asarray, (1, items)))

    @property
    def programs(self) -> int:
        """The number of compiled programs: one for each size of a round."""
        return len(self._programs)

    def _across(self, use: int) -> Any:
        mean = functools.partial(self._mean, axis=over_devices.AXIS)
        own = (False, False, True, True, True)
        return over_devices.mean(mean, own, self._devices[:use])

    def _mean(self, args: Tree, axis: str = "") -> Tree:
        """Return the mean over the items of ``(variables, aux, batch, keys, weight)``."""
        variables, aux, batch, keys, weight = args

        def item(i: int | jax.Array) -> Tree:
            own = jax.tree.map(lambda x: x[i], (batch, keys))
            out = self._value_and_grad(variables, aux, *own)
            return jax.tree.map(lambda x: x * weight[i].astype(x.dtype), out)

        count = jnp.sum(weight)
        if weight.shape[0] > 1 and self._merged:
            sums = jax.value_and_grad(self._sum, has_aux=True)(variables, aux, batch, keys, weight)
        elif weight.shape[0] > 1:
            zero = zeros(jax.eval_shape(lambda: item(0)))
            sums, _ = summed(lambda i, s: (item(i), s), zero, 0, weight.shape[0])
        else:
            sums = item(0)
        if axis:
            sums, count = jax.lax.psum((sums, count), axis)
        return jax.tree.map(lambda x: x / count.astype(x.dtype), sums)

    def _sum(self, variables: Tree, aux: Tree, batch: Tree, keys: Tree, weight: Tree) -> Tree:
        """Return the sums of the items' objectives, which share one derivative."""
        found = jax.vmap(self._objective, (None, None, 0, 0))(variables, aux, batch, keys)

        def total(x: jax.Array) -> jax.Array:  # not a matrix product, which TF32 would round
            own = weight.astype(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
            return jnp.sum(own * x, axis=0)

        return jax.tree.map(total, found)


def _place(tree: Tree, devices: Sequence[jax.Device], split: bool) -> Tree:
    return (across.place if spans(devices) else place)(tree, devices, split)


def _slice(tree: Tree, i: int | slice) -> Tree:
    return jax.tree.map(lambda x: x[i], tree)


def _lazy(tree: Tree, i: int) -> Tree:
    """Return item i; lazy rows stay lazy, with a length of 1."""
    return jax.tree.map(lambda x: x[i : i + 1] if isinstance(x, Rows) else x[i], tree)


def _read(tree: Tree) -> Tree:
    return jax.tree.map(lambda x: np.asarray(x) if isinstance(x, Rows) else x, tree)


def _read_one(tree: Tree) -> Tree:
    """Read the rows that ``_lazy`` left lazy."""
    return jax.tree.map(lambda x: x[0] if isinstance(x, Rows) else x, tree)


def _rounds(batch: Tree, items: int, use: int) -> list[slice]:
    """Return the slices of items per round: as many as fit into ``ROUND`` bytes.

    All rounds except the last have equal sizes, multiples of ``use``.
    """
    lazy = [x for x in jax.tree.leaves(batch) if isinstance(x, Rows)]
    a_device = -(-items // use)
    one = sum(x.nbytes for x in lazy) / items
    most = max(1, int(ROUND / one)) if one else a_device
    rounds = -(-a_device // min(most, a_device))
    size = -(-a_device // rounds) * use
    return [slice(lo, min(lo + size, items)) for lo in range(0, items, size)]


@jax.jit
def _add(a: Tree, b: Tree) -> Tree:
    return jax.tree.map(jnp.add, a, b)


@jax.jit
def _portion(tree: Tree, count: jax.Array, of: jax.Array) -> Tree:
    return jax.tree.map(lambda x: x * count.astype(x.dtype) / of.astype(x.dtype), tree)
