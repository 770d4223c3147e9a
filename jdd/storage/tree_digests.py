"""SHA-256 of trees of arrays, whatever their form on disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np


def of_arrays(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of nested dicts of NumPy arrays: names, types, shapes and bytes."""
    found = hashlib.sha256()
    for name, array in sorted(_leaves(tree, "")):
        found.update(_line(name, array))
        found.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def of_layout(tree: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the names, types and shapes of nested dicts of arrays, or of such."""
    return hashlib.sha256(
        b"".join(_line(name, like) for name, like in sorted(_leaves(tree, "")))
    ).hexdigest()


def _line(name: str, like: Any) -> bytes:
    return f"\n{name} {np.dtype(like.dtype).str} {tuple(like.shape)}\n".encode()


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}/{name}")
        else:
            yield f"{above}/{name}", value
