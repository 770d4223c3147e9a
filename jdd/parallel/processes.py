"""Several processes of one run, on the coordination service of ``jax.distributed``.

Every process runs the same command in the same working directory. Independent items (groups of
experts, teachers, seeds, label stores, evaluation nets) are divided: item i is that of process
i mod P, on its own devices, by the program that one process would use. Results meet in the working
directory, or in ``gather``. All processes call ``gather`` in the same order.

The items of one step are shared by collective operations of XLA (``across.py``), by orders of
process 0. A process that is gone is noticed by its heartbeat, and no process hangs in a collective
operation with one that is gone (``attended``).
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Any, TypeVar

import jax

from jdd.errors import BadInput, PeerLost
from jdd.parallel.relay import relayed

BEAT, SILENT, GRACE = 2.0, 20.0, 20.0  # seconds: a heartbeat, until it counts as gone, to save in
T = TypeVar("T")
_PIECE = 1 << 20  # bytes of one value in the store, whose messages are at most 4 MB


class Processes:
    """The processes of a run, seen from process ``index`` of ``count``.

    Args:
      client: the client of the coordination service; None for a run of one process.
    """

    def __init__(self, index: int = 0, count: int = 1, client: Any = None):
        self.index, self.count, self._client = index, count, client
        self._calls = self._orders = 0
        self._reason = ""
        self._ended: Mapping[int, str] = {}
        self._alive: Mapping[int, str] = {}
        self._lost: set[int] = set()
        self._closed = self._asking = False
        self._answered = time.monotonic()
        if client is not None:
            for work in (self._beat, self._watch):
                threading.Thread(target=work, daemon=True).start()

    @property
    def first(self) -> bool:
        """Return whether this process writes what is one."""
        return self.index == 0

    def mine(self, item: int) -> bool:
        """Return whether this process makes item ``item``."""
        return item % self.count == self.index

    @property
    def reason(self) -> str:
        """Return why this process has to stop, in words; '' if the others are well."""
        return self._reason

    def check(self) -> None:
        """Raise if another process has ended.

        Raises:
          PeerLost: naming it.
        """
        if self._reason:
            raise PeerLost(f"{self._reason}; the same commands go on from the last checkpoint")

    def gather(self, value: bytes, check: Callable[[], None]) -> list[bytes]:
        """Return the values of all processes, in their order; wait for them.

        Args:
          check: called while waiting; may raise.
        """
        if self.count == 1:
            return [value]
        self._calls += 1
        pieces = [value[i : i + _PIECE] for i in range(0, len(value), _PIECE)]
        for number, piece in enumerate(pieces):
            self._client.key_value_set_bytes(self._key(self.index, number), piece)
        self._client.key_value_set_bytes(self._key(self.index, "n"), str(len(pieces)).encode())
        found = [self._of(process, check) for process in range(self.count)]
        if self._calls > 2:  # all have read what was set two calls before: else they were not here
            self._client.key_value_delete(f"jdd/{self._calls - 2}/{self.index}/")
        return found

    def _key(self, process: int, part: int | str) -> str:
        return f"jdd/{self._calls}/{process}/{part}"

    def _of(self, process: int, check: Callable[[], None]) -> bytes:
        pause = 0.01
        while (count := self._get(self._key(process, "n"))) is None:
            check()
            self.check()
            time.sleep(pause)
            pause = min(0.5, 1.5 * pause)
        return b"".join(self._get(self._key(process, i)) or b"" for i in range(int(count)))

    def _get(self, key: str) -> bytes | None:
        self._asking = True
        try:
            return bytes(self._client.key_value_try_get_bytes(key))
        except jax.errors.JaxRuntimeError as error:
            if "NOT_FOUND" not in str(error):
                self._gone(0)  # the service is in process 0
            return None
        finally:
            self._asking = False

    def order(self, value: bytes) -> None:
        """Give an order, of process 0 to the others. A next one replaces it."""
        self._orders += 1
        words = b"%d:%s" % (self._orders, value)
        self._client.key_value_set_bytes("jdd/order", words, allow_overwrite=True)

    def ordered(self) -> bytes | None:
        """Return the newest order of process 0; None if there is none since the last call."""
        number, _, value = (self._get("jdd/order") or b"0:").partition(b":")
        if int(number) <= self._orders:
            return None
        self._orders = int(number)
        return value

    @property
    def leaderless(self) -> bool:
        """Return whether process 0 has ended."""
        return 0 in self._ended or 0 in self._lost

    def attended(self, work: Callable[[], T]) -> T:
        """Return ``work()``, a program over devices of several processes, or raise.

        It runs in a thread of its own: if it hangs since a process is lost, this one can save.

        Raises:
          PeerLost: naming the process.
        """
        done: Future[T] = Future()

        def call() -> None:
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)

        threading.Thread(target=call, daemon=True).start()
        since = None
        while not wait([done], timeout=0.2).done:
            # A process that ends by itself goes on until process 0 has ended.
            since = since or (time.monotonic() if self._reason else None)
            if since is not None and time.monotonic() - since > GRACE / 2:
                self.check()
        error = done.exception()
        lost = isinstance(error, ValueError | jax.errors.JaxRuntimeError)
        until = time.monotonic() + SILENT + GRACE
        while lost and "RESOURCE_EXHAUSTED" not in str(error) and time.monotonic() < until:
            self.check()  # the heartbeats will show which process it was
            time.sleep(0.1)
        return done.result()

    def announce(self, reason: str) -> None:
        """Inform the others that this process ends, and why; they save and end as well."""
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            words = " ".join(reason.split())[:500]
            self._client.key_value_set(f"jdd/ended/{self.index}", words, allow_overwrite=True)

    def inform(self, reason: str) -> None:
        """As ``announce``. Process 0 then waits for the others: it holds the service."""
        if self.count == 1:
            return
        self.announce(reason)
        until = time.monotonic() + SILENT + GRACE
        while self.first and time.monotonic() < until:
            if len({*self._ended, *self._lost, self.index}) == self.count:
                break
            time.sleep(0.2)
        time.sleep(1.0 if self.first else 0.0)

    def close(self) -> None:
        """End a run that all processes have finished: the others may leave from now on."""
        self._closed = True

    def _beat(self) -> None:
        """Send heartbeats, and read those of the others. A call may hang if the service is lost."""
        beat = 0
        while not self._closed:
            beat += 1
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                own = f"jdd/alive/{self.index}"
                self._client.key_value_set(own, str(beat), allow_overwrite=True)
                self._alive, self._ended = self._all("alive"), self._all("ended")
                self._answered = time.monotonic()
            time.sleep(BEAT)

    def _watch(self) -> None:
        """Look for processes that have ended, or that no heartbeat comes from."""
        seen = {p: ("", time.monotonic()) for p in range(self.count) if p != self.index}
        while not self._closed:
            now = time.monotonic()
            for process, (last, since) in seen.items():
                if process in self._ended:
                    if not self._reason and self._ended[process]:
                        self._stop(f"process {process} of {self.count} ended: "
                                   f"{self._ended[process]}")  # fmt: skip
                elif self._alive.get(process, last) != last:
                    seen[process] = self._alive[process], now
                elif now - since > SILENT and (process == 0 or now - self._answered < SILENT / 2):
                    self._gone(process)  # if the service does not answer: process 0, which has it
            if 0 in self._lost and self._asking:  # in a call that will not return
                self._leave()
            time.sleep(BEAT)

    def _all(self, name: str) -> dict[int, str]:
        pairs = self._client.key_value_dir_get(f"jdd/{name}/")
        return {int(key.rpartition("/")[2]): value for key, value in pairs}

    def disconnected(self) -> None:
        """Stop this process: its connection to process 0 has ended, and with it the service."""
        self._gone(0, "its connection has ended")

    def _gone(self, process: int, sign: str = "") -> None:
        self._lost.add(process)
        self._stop(
            f"process {process} of {self.count} is gone (killed, or its machine has failed; "
            f"{sign or f'no sign of it for {SILENT:.0f} s'})"
        )

    def _stop(self, reason: str) -> None:
        """Stop this process: at its next step, else without it."""
        if not self._reason and not self._closed:
            self._reason = reason
            timer = threading.Timer(GRACE, self._leave)
            timer.daemon = True
            timer.start()

    def _leave(self) -> None:
        if self._closed:
            return
        line = f"jdd: error: {self._reason}; the same commands go on from the last checkpoint\n"
        with contextlib.suppress(OSError):
            os.write(2, line.encode())
        os._exit(PeerLost.exit_code)


ALONE = Processes()
_running = [ALONE]


def attended(work: Callable[[], T]) -> T:
    """Return ``work()``, attended by the processes of this run."""
    return _running[-1].attended(work)


@functools.cache
def begin(coordinator: str = "", count: int | None = None, index: int | None = None) -> Processes:
    """Return the processes of this run; with a coordinator, connect to the others first.

    Called before any device is used.

    Args:
      coordinator: HOST:PORT of process 0; 'auto': found by JAX, with count and index, from the
        environment of Cloud TPU, SLURM, Open MPI or Kubernetes; '' for a run of one process.

    Raises:
      BadInput: JAX cannot connect them, or finds no such environment.
    """
    if not coordinator:
        return ALONE
    with contextlib.suppress(AttributeError):  # JAX 0.8.0 has no such option
        jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is the run's: it saves
    address = None if coordinator == "auto" else coordinator
    # With explicit flags a job's variables do not count: SLURM's would leave one device visible.
    detection = None if address is None else "deactivate"
    try:
        with relayed() as relays:
            jax.distributed.initialize(address, count, index, cluster_detection_method=detection)
    except (ValueError, RuntimeError) as error:
        reason = str(error).strip().partition("\n")[0]
        allowed = "--coordinator=HOST:PORT --processes=N --process=I, or 'auto' inside such a job"
        raise BadInput(f"--coordinator={coordinator}", reason, allowed) from error
    from jax._src import distributed  # the key-value store of the service has no public name

    state = distributed.global_state
    found = Processes(state.process_id, state.num_processes, state.client)
    for relay in relays:
        relay.hold(found.disconnected)
    _running.append(found)
    return found
