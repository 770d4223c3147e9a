"""What a stage is, and how its cost is foretold."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from jdd.session import Session
from jdd.work import Work


class Estimate(NamedTuple):
    """Foretold cost: wall seconds, XLA's temporaries in bytes, and what was timed."""

    seconds: float
    temporaries: int
    note: str


class Stage(NamedTuple):
    """One stretch of the road; its output lies on disk and is skipped when complete.

    name:        what ``--mode`` and metrics call it.
    inputs:      names of the stages whose output it reads.
    fingerprint: ``(work) -> str``, a hash of every setting that changes its output.
    run:         ``(work, session) -> None``, resumable.
    estimate:    ``(work) -> Estimate``; writes nothing.
    done:        ``(work) -> bool``, whether its output is complete for the fingerprint.
    """

    name: str
    inputs: tuple[str, ...]
    fingerprint: Callable[[Work], str]
    run: Callable[[Work, Session], None]
    estimate: Callable[[Work], Estimate]
    done: Callable[[Work], bool]


def timed(call: Callable[[], Any], repeats: int = 2) -> float:
    """Return the fastest wall seconds of ``call``, after one call to warm up."""
    jax.block_until_ready(call())
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - begun)
    return best
