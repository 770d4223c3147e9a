"""Strategies: the operations of an augmentation, written as ``crop_scale_rotate``."""

from __future__ import annotations

from collections.abc import Sequence

from jdd.errors import BadInput, nearest


def parse(strategy: str, ops: Sequence[str], where: str) -> tuple[str, ...]:
    """Return the operations of a strategy, () for "" and "none".

    Args:
      ops: the known operations.
      where: the config key that sets the strategy, for errors.

    Raises:
      BadInput: an unknown operation, or one named twice.
    """
    if strategy in ("", "none"):
        return ()
    found = tuple(strategy.split("_"))
    for name in found:
        if name not in ops:
            close = nearest(name, ops)
            meant = f" (did you mean {close!r}?)" if close else ""
            unknown = f"unknown operation {name!r} in {strategy!r}{meant}"
            raise BadInput(where, unknown, f"none, or any of {', '.join(ops)} joined by _")
    if len(set(found)) < len(found):
        raise BadInput(where, f"an operation twice in {strategy!r}", "each at most once")
    return found
