"""Connection to the coordination service that survives the loss of process 0.

JAX's client aborts its process, with exit code 134 and several lines, at the moment that its
connection to the service breaks, and the service lives in process 0. So the other processes connect
through a relay of their own: bytes pass unchanged, and if the far end is lost, the near end stays
open and silent. The process then has JAX's heartbeat timeout, 100 s, to save and to end by itself.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

_PIECE = 1 << 16  # bytes read at a time
_CONNECT = 10.0  # seconds; JAX's client tries again


class Relay:
    """Passes connections to a port of this machine on to ``HOST:PORT``.

    Until ``hold`` is called, a connection that fails or ends is closed at both ends.
    """

    def __init__(self, address: str):
        host, _, port = address.rpartition(":")
        self._far = (host.strip("[]"), int(port))
        self._lost: Callable[[], None] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        _thread(self._accept)

    def hold(self, lost: Callable[[], None]) -> None:
        """From now on call ``lost`` when the far end is gone, and leave the near end open."""
        self._lost = lost

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            _thread(self._connect, near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection(self._far, timeout=_CONNECT)
        except OSError:
            self._ended(near)
            return
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _thread(self._outward, near, far)
        _pass(far, near)
        self._ended(near)

    def _outward(self, near: socket.socket, far: socket.socket) -> None:
        _pass(near, far)
        _close(far)

    def _ended(self, near: socket.socket) -> None:
        """Handle the end of the far side."""
        if self._lost is None:
            _close(near)
        else:
            self._lost()


def _pass(source: socket.socket, target: socket.socket) -> None:
    """Pass bytes on until either end is closed."""
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads from it
    end.close()


def _thread(target: Callable[..., None], *args: socket.socket) -> None:
    threading.Thread(target=target, args=args, daemon=True).start()


@contextlib.contextmanager
def relayed() -> Iterator[list[Relay]]:
    """Let a client that JAX makes inside connect through a relay, which is put into the list.

    The client of process 0 connects to the service itself.
    """
    # jax.distributed.initialize has no argument for it.
    from jax._src.lib import _jax  # type: ignore[attr-defined]

    made, relays = _jax.get_distributed_runtime_client, []

    def client(address: str, process: int, **options: object) -> object:
        if process:
            relays.append(Relay(address))
            address = relays[-1].address
        return made(address, process, **options)

    _jax.get_distributed_runtime_client = client
    try:
        yield relays
    finally:
        _jax.get_distributed_runtime_client = made
