"""LeNet-5 with ReLU and max pooling (LeCun et al. 1998; the evaluation pool of DC, 2021)."""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import max_pool


class LeNet(nn.Module):
    """conv5(6) pool, conv5(16) pool, 120, 84, classes; one channel is padded by 2 (28 -> 32)."""

    classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        del train
        for i, (width, padding) in enumerate(((6, 2 if x.shape[-1] == 1 else 0), (16, 0)), 1):
            x = max_pool(nn.relu(Conv(width, 5, padding=padding, name=f"conv{i}")(x)))
            tap(self, f"block{i}", x)
        x = flatten(x)
        for i, width in enumerate((120, 84), 3):
            x = nn.relu(Dense(width, name=f"dense{i}")(x))
            tap(self, f"block{i}", x)
        return Dense(self.classes, name="head")(x), x
