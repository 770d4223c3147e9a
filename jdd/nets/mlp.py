"""MLP: hidden layers of 128 on the flattened image, two in the evaluation pool of DC (2021)."""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Dense, flatten, tap


class MLP(nn.Module):
    """flatten -> 128 ReLU, as often as it has layers -> classes."""

    classes: int
    width: int = 128
    layers: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        del train
        x = flatten(x)
        for i in range(1, self.layers + 1):
            x = nn.relu(Dense(self.width, name=f"dense{i}")(x))
            tap(self, f"block{i}", x)
        return Dense(self.classes, name="head")(x), x
