"""VGG11 for small images (Simonyan & Zisserman 2015; the evaluation pool of DC, 2021)."""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import max_pool
from jdd.nets.norm import norm

# Widths for width=64; True: a 2x2 max pooling follows.
LAYERS = (
    (64, True),
    (128, True),
    (256, False),
    (256, True),
    (512, False),
    (512, True),
    (512, False),
    (512, True),
)


class VGG11(nn.Module):
    """Eight 3x3 convolutions with norm, five poolings, one linear layer.

    Images of one channel get padding 3 in the first convolution (28 -> 32). Larger images than 32
    leave a larger last map, which is flattened.
    """

    classes: int
    norm: str = "instance"
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        for i, (width, pool) in enumerate(LAYERS, 1):
            padding = 3 if i == 1 and x.shape[-1] == 1 else 1
            x = Conv(width * self.width // 64, padding=padding, name=f"conv{i}")(x)
            x = nn.relu(norm(self.norm, f"norm{i}")(x, train))
            x = max_pool(x) if pool else x
            tap(self, f"block{i}", x)
        features = flatten(x)
        return Dense(self.classes, name="head")(features), features
