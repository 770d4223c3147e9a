"""Execution order of a net's layers (jit sorts the dict of taps, which loses it)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets.base import Conv, Depthwise, Net
from jdd.nets.norm import BatchNorm

KINDS: dict[str, tuple[type[nn.Module], ...]] = {
    "conv": (Conv, Depthwise),
    "batch": (BatchNorm,),
}


def order(net: Net, kinds: Sequence[str] = tuple(KINDS)) -> tuple[str, ...]:
    """Return the names of a net's convolutions ("conv") and batch norms ("batch"), as executed.

    These are the names of their inputs in ``Output.taps``. The net is traced once, without work on
    a device; a layer that runs twice counts at its first run. () if it has none.
    """
    return tuple(name for name, kind in _layers(net) if kind in kinds)


@lru_cache(maxsize=64)
def _layers(net: Net) -> tuple[tuple[str, str], ...]:
    found: dict[str, str] = {}

    def record(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        for kind, layer in KINDS.items():
            if isinstance(context.module, layer) and context.method_name == "__call__":
                found.setdefault("/".join(context.module.path), kind)
        return call(*args, **kwargs)

    variables = jax.eval_shape(net.init, jax.random.key(0))
    image = jax.ShapeDtypeStruct((1, *net.shape), jnp.float32)
    with nn.intercept_methods(record):
        # With taps no two layers are fused (``folded.py``): each one is recorded.
        jax.eval_shape(lambda v, x: net.apply(v, x, taps="all"), variables, image)
    return tuple(found.items())
