"""AlexCifarNet: two convolutions with local response normalisation, three linear layers.

Source: the CIFAR-10 net of DD (Wang et al. 2018), after the small net of Krizhevsky (2012).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import overlapping_max_pool


def local_response(
    x: jax.Array, size: int = 4, alpha: float = 0.001 / 9, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Divide by (k + alpha / size * sum of the squares of ``size`` neighbouring channels)^beta.

    Channel c's window is c - size // 2 .. c + (size - 1) // 2, zeros outside, as PyTorch's.
    """
    squares = jnp.pad(x * x, ((0, 0), (0, 0), (0, 0), (size // 2, (size - 1) // 2)))
    channels = x.shape[-1]
    total = squares[..., :channels]
    for i in range(1, size):
        total = total + squares[..., i : i + channels]
    return x * (k + alpha / size * total) ** -beta


class AlexCifarNet(nn.Module):
    """conv5(64) pool LRN, conv5(64) LRN pool, 384, 192, classes; widths scale with ``width=64``."""

    classes: int
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        del train
        x = nn.relu(Conv(self.width, 5, padding=2, name="conv1")(x))
        x = local_response(overlapping_max_pool(x))
        tap(self, "block1", x)
        x = nn.relu(Conv(self.width, 5, padding=2, name="conv2")(x))
        x = overlapping_max_pool(local_response(x))
        tap(self, "block2", x)
        x = flatten(x)
        for i, width in enumerate((384, 192), 3):
            x = nn.relu(Dense(width * self.width // 64, name=f"dense{i}")(x))
            tap(self, f"block{i}", x)
        return Dense(self.classes, name="head")(x), x
