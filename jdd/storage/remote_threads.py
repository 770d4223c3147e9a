"""Transfers of many small objects at a time: each waits for an answer of the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_AT_ONCE = 16
In = TypeVar("In")
Out = TypeVar("Out")


def each(call: Callable[[In], Out], values: Sequence[In]) -> list[Out]:
    """Return the results of ``call``. After an exception, which is raised, no more are begun."""
    if len(values) < 2:
        return [call(value) for value in values]
    pool = ThreadPoolExecutor(min(_AT_ONCE, len(values)), "jdd transfer")
    try:
        return [done.result() for done in [pool.submit(call, value) for value in values]]
    finally:
        pool.shutdown(cancel_futures=True)
