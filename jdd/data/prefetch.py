"""Prefetching: a thread reads the next piece while the current one is in use."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Piece = TypeVar("Piece")
Found = TypeVar("Found")


class Prefetcher(Generic[Piece, Found]):
    """Iterate over ``(piece, read(piece))`` in order while a thread reads the next piece.

    At most two pieces are in memory in addition to the one in use: one that is read, one being
    read. ``waited`` is the number of seconds the loop has waited for its input, including the first
    piece; it is meaningful if the loop waits for its device work before it requests more.

    An exception of ``read`` is raised in the loop; leaving the loop, or ``close``, ends the thread.
    """

    def __init__(self, read: Callable[[Piece], Found], pieces: Iterable[Piece]):
        self._read, self._pieces = read, iter(pieces)
        self._coming: deque[tuple[Piece, Future[Found]]] = deque()
        self._pool: ThreadPoolExecutor | None = None
        self.waited = 0.0

    def __iter__(self) -> Iterator[tuple[Piece, Found]]:
        self._pool = self._pool or ThreadPoolExecutor(1)
        try:
            self._ask()
            while self._coming:
                self._ask()  # queued behind the awaited piece, so that the thread is never idle
                piece, future = self._coming.popleft()
                start = time.perf_counter()
                found = future.result()
                self.waited += time.perf_counter() - start
                yield piece, found
                del future, found
        finally:
            self.close()

    def _ask(self) -> None:
        if self._pool is not None and len(self._coming) < 2:
            for piece in self._pieces:
                self._coming.append((piece, self._pool.submit(self._read, piece)))
                return

    def close(self) -> None:
        """End the thread and drop the pieces it has read."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
        self._coming.clear()
