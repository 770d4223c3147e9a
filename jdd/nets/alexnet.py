"""AlexNet for small images (Krizhevsky et al. 2012; the evaluation pool of DC, 2021)."""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import max_pool
from jdd.nets.norm import norm


class AlexNet(nn.Module):
    """Five convolutions, three poolings, one linear layer; normalisation only in the BN form.

    Widths are given for ``width=128`` and scale with it.
    """

    classes: int
    norm: str = "none"
    width: int = 128

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        first = 4 if x.shape[-1] == 1 else 2  # one channel: 28 pixels become 32
        layers = (
            (128, 5, first, True),
            (192, 5, 2, True),
            (256, 3, 1, False),
            (192, 3, 1, False),
            (192, 3, 1, True),
        )
        for i, (width, size, padding, pool) in enumerate(layers, 1):
            x = Conv(width * self.width // 128, size, padding=padding, name=f"conv{i}")(x)
            x = nn.relu(norm(self.norm, f"norm{i}")(x, train))
            x = max_pool(x) if pool else x
            tap(self, f"block{i}", x)
        features = flatten(x)
        return Dense(self.classes, name="head")(features), features
