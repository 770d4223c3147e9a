"""Several processes of one run: what they share, equal results, and processes that are lost."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jdd import main
from jdd.errors import BadInput, PeerLost
from jdd.evaluation import train_eval
from jdd.methods.base import State
from jdd.parallel import processes
from jdd.parallel.processes import ALONE, Processes
from jdd.parallel.relay import Relay
from jdd.run import loop, metrics, team
from jdd.run.session import Session


class Store:
    """Stands in for the key-value store of JAX's coordination service."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def key_value_set(self, key: str, value: Any, allow_overwrite: bool = False) -> None:
        assert allow_overwrite or key not in self.values, f"{key} is set twice"
        self.values[key] = value

    key_value_set_bytes = key_value_set

    def key_value_try_get_bytes(self, key: str) -> bytes:
        if key not in self.values:
            raise jax.errors.JaxRuntimeError(f"NOT_FOUND: Config key {key} not found.")
        return bytes(self.values[key])

    def key_value_dir_get(self, folder: str) -> list[tuple[str, str]]:
        return [(k, v) for k, v in list(self.values.items()) if k.startswith(folder)]

    def key_value_delete(self, folder: str) -> None:
        for key in [key for key in self.values if key.startswith(folder)]:
            del self.values[key]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make heartbeats quick; list the codes that a process would leave with."""
    left: list[int] = []
    for name, seconds in (("BEAT", 0.05), ("SILENT", 1.0), ("GRACE", 1.0)):
        monkeypatch.setattr(processes, name, seconds)
    monkeypatch.setattr(processes.os, "_exit", left.append)
    return left


def all_of(count: int, work: Callable[[Processes], Any]) -> list[Any]:
    """Run ``work`` in ``count`` processes that share a store, each a thread here."""
    store = Store()
    every = [Processes(i, count, store) for i in range(count)]
    try:
        with ThreadPoolExecutor(count) as pool:
            return list(pool.map(work, every))
    finally:
        for one in every:
            one.close()


def test_values_of_all_processes_meet_in_order(quick: list[int]) -> None:
    def work(own: Processes) -> list[bytes]:
        found: list[bytes] = []
        for call in range(5):
            if own.index == call % 3:
                time.sleep(0.05)  # another one is late each time
            long = bytes([own.index]) * (processes._PIECE + 3) if call == 2 else b""
            found = own.gather(long or f"{own.index} {call}".encode(), lambda: None)
            if call == 2:
                assert found == [bytes([i]) * (processes._PIECE + 3) for i in range(3)]
        assert len([key for key in own._client.values if "/2/" in key]) < 9  # old ones are deleted
        return found

    assert all_of(3, work) == [[b"0 4", b"1 4", b"2 4"]] * 3
    assert ALONE.gather(b"x", lambda: None) == [b"x"] and ALONE.mine(7) and ALONE.first
    assert [[own.mine(i) for i in range(5)] for own in (Processes(0, 2), Processes(1, 2))] == [
        [True, False, True, False, True],
        [False, True, False, True, False],
    ]


def test_a_silent_process_is_named(quick: list[int], capfd: Any) -> None:
    store = Store()
    own = Processes(0, 2, store)
    store.values["jdd/alive/1"] = "1"
    with pytest.raises(PeerLost, match="process 1 of 2 is gone .*; the same commands go on"):
        own.gather(b"", lambda: None)
    until = time.monotonic() + 20
    while not quick and time.monotonic() < until:
        time.sleep(0.05)
    own.close()
    assert quick == [7]  # had it not come to save
    err = capfd.readouterr().err
    assert err.startswith("jdd: error: process 1 of 2 is gone") and err.count("\n") == 1


def test_a_service_that_does_not_answer_is_process_0_gone(quick: list[int]) -> None:
    """The machine of process 0 failed: calls hang, and no other process is heard of either."""
    store, lost, answers = Store(), threading.Event(), Store.key_value_dir_get

    def hangs(folder: str) -> list[tuple[str, str]]:
        if lost.is_set():
            time.sleep(5)
        return answers(store, folder)

    store.key_value_dir_get = hangs  # type: ignore[method-assign]
    every = [Processes(i, 3, store) for i in range(3)]
    time.sleep(0.3)
    lost.set()
    until = time.monotonic() + 4
    while not every[1].reason and time.monotonic() < until:
        time.sleep(0.05)
    for one in every:
        one.close()
    assert every[1].reason.startswith("process 0 of 3 is gone")


def test_a_relay_holds_a_connection_whose_far_end_is_lost() -> None:
    lost = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as service:
        relay = Relay(f"127.0.0.1:{service.getsockname()[1]}")
        host, port = relay.address.split(":")
        for held in (False, True):
            if held:
                relay.hold(lost.set)
            near = socket.create_connection((host, int(port)), timeout=5)
            far, _ = service.accept()
            near.sendall(b"asked")
            assert far.recv(5) == b"asked"
            far.sendall(b"answer")
            assert near.recv(6) == b"answer"
            far.close()
            if held:
                assert lost.wait(5)
                near.settimeout(0.2)
                with pytest.raises(TimeoutError):  # open, and silent
                    near.recv(1)
            else:
                assert near.recv(1) == b"" and not lost.is_set()  # JAX's client tries again
            near.close()


def test_no_process_hangs_in_a_program_with_one_that_is_lost(quick: list[int]) -> None:
    """The program of several devices hangs, or fails at once as gloo's do."""
    for fails in (False, True):
        store, left = Store(), threading.Event()
        own = Processes(1, 2, store)
        assert own.attended(lambda: 3) == 3
        store.values["jdd/alive/0"] = "1"  # and no more

        def work(left: threading.Event = left, fails: bool = fails) -> None:
            if fails:
                raise ValueError("Gloo all-reduce failed")
            left.wait(20)

        with pytest.raises(PeerLost, match="process 0 of 2 is gone"):
            own.attended(work)
        left.set()
        own.close()
    alone = Processes()
    with pytest.raises(KeyError):  # any other error is itself
        alone.attended(lambda: {}[0])


def test_orders_of_process_0_are_followed_once(quick: list[int]) -> None:
    store = Store()
    first, other = Processes(0, 2, store), Processes(1, 2, store)
    assert other.ordered() is None
    for order in (b'{"step": 0}', b""):
        first.order(order)
        assert other.ordered() == order and other.ordered() is None
    assert not other.leaderless
    first.announce("its end")
    until = time.monotonic() + 5
    while not (other.leaderless and other.reason) and time.monotonic() < until:
        time.sleep(0.02)
    first.close()
    other.close()
    assert other.leaderless and "its end" in other.reason


def test_a_slow_process_is_waited_for_before_the_first_step_of_a_part(
    quick: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 0 comes to the collective operation, which a stub stands in for, when all can."""
    here, barrier = threading.local(), threading.Barrier(2)
    sent: list[Any] = []
    joined: list[tuple[int, str, int, float]] = []
    built: list[str] = []

    def broadcast(tree: Any, used: list[Any]) -> Any:
        assert len(used) == 2
        if here.index == 0:
            assert len(built) == here.parts
            sent.append(tree)
        barrier.wait(20)
        here.calls += 1
        return sent[here.calls - 1]

    monkeypatch.setattr(team, "spans", lambda devices: len(devices) > 1)
    monkeypatch.setattr(team.across, "own", lambda devices: slice(0, 1))
    monkeypatch.setattr(team.across, "broadcast", broadcast)

    def carry(value: float, step: int) -> loop.Carry:
        return loop.Carry(State({"images": jnp.full(2, value)}, {}), {}, jnp.asarray(step))

    def build(about: Mapping[str, Any]) -> Any:
        if about["part"] not in built:
            time.sleep(0.3)
            built.append(about["part"])

        def gradient(found: loop.Carry, batch: Any) -> None:
            value = float(found.state.variables["images"][0])
            joined.append((about["seed"], about["part"], int(found.step), value))

        same = SimpleNamespace(sample=lambda seed, step: {"rows": np.arange(2)}, gather=lambda i: i)
        return same, same, gradient, carry(0, 0)

    def work(own: Processes) -> None:
        here.index, here.parts, here.calls = own.index, 0, 0
        both = team.Team(own, [None, None])  # type: ignore[list-item]
        session = Session(tmp_path, progress=False, processes=own)
        with contextlib.closing(session.metrics):
            if not own.first:
                both.follow(session, build)
                return
            for part in "ab":
                here.parts += 1
                order_step = both.lead(session, {"seed": 3, "part": part})
                order_step(0, {"rows": np.arange(1)}, carry(7, 0))  # one item: not shared
                for step in (0, 1):
                    order_step(step, {"rows": np.arange(2)}, carry(step + 0.5, step))
            both.end()

    all_of(2, work)
    assert joined == [(3, part, step, step + 0.5) for part in "ab" for step in (0, 1)]
    assert built == ["a", "b"]


def test_a_process_that_ends_while_it_builds_is_named_to_process_0(
    quick: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(team, "spans", lambda devices: len(devices) > 1)

    def build(about: Mapping[str, Any]) -> Any:
        raise BadInput("config.net", "a net", "another")

    def work(own: Processes) -> str:
        both = team.Team(own, [None, None])  # type: ignore[list-item]
        start = loop.Carry(State({}, {}), {}, jnp.asarray(0))
        session = Session(tmp_path, progress=False, processes=own)
        with (
            contextlib.closing(session.metrics),
            pytest.raises(PeerLost if own.first else BadInput) as caught,
        ):
            if own.first:
                both.lead(session, {"seed": 0})(0, {"rows": np.arange(2)}, start)
            both.follow(session, build)
        own.inform(str(caught.value))
        return str(caught.value)

    assert all_of(2, work)[0].startswith("process 1 of 2 ended: config.net: ")


def test_a_process_that_ends_tells_the_others_why(quick: list[int]) -> None:
    def work(own: Processes) -> str:
        if own.index == 1:
            own.inform("config.ipc: 3;\nnot 4")
            return ""
        with pytest.raises(PeerLost) as caught:
            own.gather(b"", lambda: None)
        own.inform(str(caught.value))
        return str(caught.value)

    line = all_of(2, work)[0]
    assert line.startswith("process 1 of 2 ended: config.ipc: 3; not 4; the same commands")


def test_nets_of_an_evaluation_are_joined_in_order(quick: list[int], tmp_path: Path) -> None:
    def work(own: Processes) -> list[float]:
        session = Session(tmp_path, progress=False, processes=own)
        session.divided = True
        found = {lo: np.full((1, 2), lo, np.float32) for lo in range(5) if session.mine(lo)}
        every = train_eval.together(found, session)
        with session.alone():
            assert session.mine(0) and session.mine(1)
        session.metrics.close()
        return [float(every[lo][0, 0]) for lo in sorted(every)]

    assert all_of(2, work) == [[0.0, 1.0, 2.0, 3.0, 4.0]] * 2


def test_lines_of_other_processes_are_written_by_the_first(tmp_path: Path) -> None:
    first, other = metrics.Metrics(tmp_path), metrics.Metrics(tmp_path, writes=False)
    other.log("distill-s1", 1, loss=2.0)
    first.log("distill", 1, loss=1.0)
    rows = other.taken()
    assert len(metrics.read(tmp_path / "metrics.jsonl")) == 1 and not other.taken()
    first.adopt(json.loads(json.dumps(rows)))
    first.adopt(rows)  # no line twice
    for log in (first, other):
        log.close()
    found = [(row["stage"], row["loss"]) for row in metrics.read(tmp_path / "metrics.jsonl")]
    assert found == [("distill", 1.0), ("distill-s1", 2.0)]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--processes=2"], "--coordinator=HOST:PORT"),
        (["--coordinator=x", "--processes=2", "--process=0"], "HOST:PORT"),
        (["--coordinator=x:1", "--processes=2"], "--process: missing"),
        (["--coordinator=x:1", "--processes=two", "--process=0"], "--processes: 'two'"),
        (["--coordinator=x:1", "--processes=2", "--process=2"], "0 to 1"),
        (["--coordinator=x:1", "--processes=0", "--process=0"], "--process"),
        (["--coordinator=auto", "--mode=estimate"], "--mode=estimate"),
    ],
)
def test_flags_that_name_no_process_are_refused(capsys: Any, flags: list[str], says: str) -> None:
    assert main.main(flags) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
