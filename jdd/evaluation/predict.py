"""Batched logits, features and embeddings of many inputs by one trained net."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import jax
import numpy as np

from jdd.evaluation.accuracy import BATCH, padded
from jdd.nets import Net
from jdd.run.session import Session

Tree = Any


class Outputs(NamedTuple):
    """logits: float32 [n, classes]; features: float32 [n, d], the input of the classifier."""

    logits: np.ndarray
    features: np.ndarray


@lru_cache(maxsize=64)
def _forward(net: Net) -> Any:
    def forward(variables: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        out = net.apply(variables, images, train=False)
        return out.logits, out.features

    return jax.jit(forward)


def outputs(
    net: Net,
    variables: Tree,
    images: np.ndarray,
    session: Session | None = None,
    batch: int = BATCH,
) -> Outputs:
    """Return a net's outputs with ``variables`` for ``images`` [n, h, w, c] in its input space.

    ``batch`` images are processed at a time.

    Raises:
      Interrupted: with a session, when a signal arrives.
    """
    found: list[Outputs] = []
    for lo in range(0, len(images), batch):
        if session is not None:
            session.check()
        x = images[lo : lo + batch]
        out = _forward(net)(variables, padded(x, batch))  # to compile once
        found.append(Outputs(*(np.asarray(a)[: len(x)] for a in out)))
    return Outputs(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def embed(
    net: Net, variables: Tree, name: str, values: np.ndarray, session: Session | None = None
) -> np.ndarray:
    """Return the embeddings of one tower, float32 ``[n, size]``.

    Args:
      name: "image" or "text".
      values: its inputs, ``[n, ...]``.

    Raises:
      Interrupted: with a session, when a signal arrives.
    """
    found = []
    for lo in range(0, len(values), BATCH):
        if session is not None:
            session.check()
        x = values[lo : lo + BATCH]
        missing = min(BATCH, len(values)) - len(x)  # padded to the compiled shape
        if missing:
            x = np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)])
        out = np.asarray(_tower(net, name)(variables, x))
        found.append(out[: len(out) - missing])
    return np.concatenate(found)


@lru_cache(maxsize=64)
def _tower(net: Net, name: str) -> Any:
    return jax.jit(lambda variables, x: net.apply(variables, {name: x}).embeddings[name])
