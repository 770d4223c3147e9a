"""What a stage is, and how its cost is foretold."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from jdd.session import Session
from jdd.work import Work


class Estimate(NamedTuple):
    """Foretold cost: wall seconds, XLA's temporaries in bytes, what was timed, bytes on disk."""

    seconds: float
    temporaries: int
    note: str
    disk: int = 0


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


# Pixels of a step, without channels, that are timed as they are: 256 images of 32 x 32 on a CPU.
_PIXELS = {"cpu": 1 << 18}
_MORE = 1 << 26


def share(images: int, shape: Sequence[int], devices: Sequence[jax.Device]) -> int:
    """Return how many of the ``images`` of a step are timed, in place of all of them.

    All, where that takes seconds on this kind of device; else as many as have half the pixels of
    that, four at least. Time and temporaries are taken to grow with the images: what does not is
    counted too often, so both are upper bounds.
    """
    most, pixels = _PIXELS.get(devices[0].platform, _MORE), shape[0] * shape[1]
    return images if images * pixels <= most else min(images, max(4, most // 2 // pixels))


def scaled(few: int, images: int) -> str:
    """Say from how many images a step's cost was taken; '' where from all."""
    return f" (from {few} of {images} images)" if few < images else ""


def timed(call: Callable[[], Any], repeats: int = 2) -> float:
    """Return the fastest wall seconds of ``call``, after one call to warm up."""
    jax.block_until_ready(call())
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(call())
        best = min(best, time.perf_counter() - begun)
    return best
