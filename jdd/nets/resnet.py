"""ResNet18 for small images (He et al. 2016; the evaluation pools of DC and MTT).

The stem is a 3x3 convolution of stride 1. In the AP form a convolution of stride 2 is one of stride
1 followed by an average pooling, and the last map is flattened instead of averaged.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import avg_pool
from jdd.nets.norm import norm


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, a 1x1 convolution where the shape changes."""

    features: int
    stride: int
    norm: str
    pooled: bool

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        halve = self.pooled and self.stride == 2
        stride = 1 if halve else self.stride
        y = Conv(self.features, stride=stride, bias=False, name="conv1")(x)
        y = nn.relu(norm(self.norm, "norm1")(y, train))
        y = avg_pool(y) if halve else y
        y = Conv(self.features, bias=False, name="conv2")(y)
        y = norm(self.norm, "norm2")(y, train)
        if self.stride != 1 or x.shape[-1] != self.features:
            x = avg_pool(x) if halve else x  # before the 1x1 convolution: same map, a quarter work
            x = Conv(self.features, 1, stride, 0, bias=False, name="shortcut")(x)
            x = norm(self.norm, "norm3")(x, train)
        return nn.relu(x + y)


class ResNet18(nn.Module):
    """Stem, then four stages of two blocks of width 64, 128, 256, 512 (for ``width=64``)."""

    classes: int
    norm: str = "instance"
    pooled: bool = False
    width: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        x = Conv(self.width, bias=False, name="conv0")(x)
        x = nn.relu(norm(self.norm, "norm0")(x, train))
        for stage in range(4):
            for i in (1, 2):
                stride = 2 if stage and i == 1 else 1
                width, name = self.width * 2**stage, f"stage{stage + 1}_{i}"
                x = Block(width, stride, self.norm, self.pooled, name=name)(x, train)
                tap(self, f"block{2 * stage + i}", x)
        features = flatten(x) if self.pooled else x.mean((1, 2))
        return Dense(self.classes, name="head")(features), features
