"""ConvNet: the net of the distillation papers (Gidaris & Komodakis 2018; DC, Zhao et al. 2021).

``depth`` blocks of Conv3x3 -> norm -> activation -> pool 2x2, then one linear layer. Images of one
channel get padding 3 in the first convolution, which makes MNIST's 28 pixels 32.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import avg_pool, max_pool
from jdd.nets.norm import norm

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "leaky": lambda x: nn.leaky_relu(x, 0.01),
    "swish": nn.swish,
}
POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "avg": avg_pool,
    "max": max_pool,
    "none": lambda x: x,
}


def first_padding(channels: int) -> int:
    """Padding of the first 3x3 convolution."""
    return 3 if channels == 1 else 1


class ConvNet(nn.Module):
    """See the module's text; ``pool="none"`` keeps the size throughout."""

    classes: int
    width: int = 128
    depth: int = 3
    norm: str = "instance"
    act: str = "relu"
    pool: str = "avg"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        for i in range(1, self.depth + 1):
            padding = first_padding(x.shape[-1]) if i == 1 else 1
            x = Conv(self.width, padding=padding, name=f"conv{i}")(x)
            x = norm(self.norm, f"norm{i}")(x, train)
            x = POOLS[self.pool](ACTIVATIONS[self.act](x))
            tap(self, f"block{i}", x)
        features = flatten(x)
        return Dense(self.classes, name="head")(features), features
