"""PRNG keys as a function of (seed, purpose, step): no random state is ever checkpointed."""

from __future__ import annotations

import zlib

import jax
import numpy as np


def _purpose(purpose: str) -> int:
    # crc32 and not hash(): Python's hash of a string differs between processes.
    return zlib.crc32(purpose.encode())


def key(seed: int, purpose: str, step: int | jax.Array = 0) -> jax.Array:
    """Return the typed PRNG key of (seed, purpose, step); ``step`` may be traced."""
    return jax.random.fold_in(stream(seed, purpose), step)


def stream(seed: int, purpose: str) -> jax.Array:
    """Return the key of (seed, purpose), from which the keys of steps are folded."""
    return jax.random.fold_in(jax.random.key(seed), _purpose(purpose))


def host(seed: int, purpose: str, step: int = 0) -> np.random.Generator:
    """Return the NumPy generator of (seed, purpose, step), for draws on the host."""
    return np.random.default_rng([seed, _purpose(purpose), step])
