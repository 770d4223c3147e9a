"""The steps of a set, shared by several processes.

Process 0 runs the outer loop as one process would: it draws, updates, saves, measures and decides.
Before a step it orders the others to join, and sends them the state. Each process then gathers
and computes the items of its own devices, and their mean is that of all devices. So everything
but a step's gradient is in one process, and a run goes on with any number of processes.

Before the first step of a seed or part all processes wait until each has built its method: the
first collective operation connects their devices, for which gloo allows 30 s.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax

from jdd.errors import Interrupted
from jdd.methods.base import Method, Problem
from jdd.parallel import Processes, across
from jdd.parallel.devices import spans
from jdd.run.loop import Carry, Gradient, item_count
from jdd.run.session import Session

Indices = dict[str, Any]  # of a step, see ``Method.sample``
_PAUSES = 0.001, 0.05  # seconds between two looks for an order: at first, at most


class Team:
    """The devices that share a step, those of one process or of several."""

    def __init__(self, processes: Processes, devices: Sequence[jax.Device]):
        self._processes, self.devices = processes, list(devices)

    @property
    def several(self) -> bool:
        """Return whether devices of several processes share a step."""
        return spans(self.devices)

    def lead(
        self, session: Session, about: Mapping[str, Any]
    ) -> Callable[[int, Indices, Carry], None]:
        """Return a function to call with every step, its indices and its carry, in process 0.

        Its first order makes all processes meet; it raises as ``Session.gather`` does.

        Args:
          about: what the others need to build the same method, as JSON.
        """
        met = False

        def order_step(step: int, indices: Indices, carry: Carry) -> None:
            nonlocal met
            used = self._used(indices) if self.several else self.devices
            if not spans(used):  # this process computes the step alone
                return
            order = {**about, "step": step, "meet": not met}
            self._processes.order(json.dumps(order).encode())
            if not met:
                self._meet(session, carry)
                met = True
            across.broadcast((carry.state, carry.step), used)

        return order_step

    def end(self) -> None:
        """Send the others on, from process 0."""
        if self.several:
            self._processes.order(b"")

    def follow(
        self,
        session: Session,
        build: Callable[[Mapping[str, Any]], tuple[Method, Problem, Gradient, Carry]],
    ) -> None:
        """Join the steps that process 0 orders, until it sends this process on.

        Args:
          build: returns for what ``lead`` was given a method, its problem, its gradient and a
            carry of its structure.

        Raises:
          PeerLost: process 0 has ended; or another process, in the middle of a step.
          Interrupted: this process was asked to stop.
        """
        for order in self._orders(session):
            step, meet = order.pop("step"), order.pop("meet")
            method, problem, gradient, carry = build(order)
            indices = method.sample(int(order["seed"]), step)
            if meet:
                self._meet(session, carry)
            used = self._used(indices)
            mine = across.own(used)
            if mine.stop > mine.start:
                state, at = across.broadcast((carry.state, carry.step), used)
                gradient(Carry(state, carry.optimizer, at), problem.gather(indices))

    def _meet(self, session: Session, carry: Carry) -> None:
        """Wait until the method of every process is built, its first state included."""
        jax.block_until_ready(carry.state)
        self._processes.gather(b"", session.check)

    def _used(self, indices: Indices) -> list[jax.Device]:
        """Return the devices that share a step of these indices: at most as many as items."""
        return self.devices[: item_count(indices)]

    def _orders(self, session: Session) -> Iterator[dict[str, Any]]:
        announced, pause = False, _PAUSES[0]
        while True:
            found = self._processes.ordered()
            if found is not None:
                pause = _PAUSES[0]
                if not found:
                    return
                yield json.loads(found)
                continue
            if self._processes.leaderless:
                raise session.interrupted()
            if session.stopping and not announced:
                # Process 0 may be in a step that this one has to join: it is asked to end first.
                error = session.interrupted()
                announced = isinstance(error, Interrupted)
                if announced:
                    self._processes.announce(str(error))
            time.sleep(pause)
            pause = min(_PAUSES[1], 1.2 * pause)
