"""Residual nets (He et al. 2016): ResNet18 of DC's and MTT's pools; 18 and 50 as SRe2L has them.

The stem is a 3x3 convolution of stride 1, or, for ImageNet, the paper's: 7x7 of stride 2 and a 3x3
max pooling of stride 2. A bottleneck has its stride in the 3x3 convolution, as torchvision's has.
In the AP form a convolution of stride 2 is replaced by one of stride 1 and an average pooling, and
the last map is flattened instead of averaged.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, averaged, flatten, tap
from jdd.nets.conv import avg_pool, overlapping_max_pool
from jdd.nets.norm import norm


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, which is a 1x1 convolution if the shape changes."""

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


class Bottleneck(nn.Module):
    """1x1, 3x3 and a widening 1x1 convolution with a shortcut: [n, h, w, c] -> 4 ``features``."""

    features: int
    stride: int
    norm: str

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        wide = 4 * self.features
        y = Conv(self.features, 1, padding=0, bias=False, name="conv1")(x)
        y = nn.relu(norm(self.norm, "norm1")(y, train))
        y = Conv(self.features, stride=self.stride, bias=False, name="conv2")(y)
        y = nn.relu(norm(self.norm, "norm2")(y, train))
        y = Conv(wide, 1, padding=0, bias=False, name="conv3")(y)
        y = norm(self.norm, "norm3")(y, train)
        if self.stride != 1 or x.shape[-1] != wide:
            x = Conv(wide, 1, self.stride, 0, bias=False, name="shortcut")(x)
            x = norm(self.norm, "norm4")(x, train)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Stem, then four stages of ``blocks`` blocks of width 64, 128, 256, 512 (for ``width=64``).

    ``bottleneck`` blocks are ``Bottleneck`` (no AP form); ``large`` is the stem for ImageNet.
    """

    classes: int
    norm: str = "instance"
    pooled: bool = False
    width: int = 64
    blocks: tuple[int, int, int, int] = (2, 2, 2, 2)
    bottleneck: bool = False
    large: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        size, stride = (7, 2) if self.large else (3, 1)
        x = Conv(self.width, size, stride, size // 2, bias=False, name="conv0")(x)
        x = nn.relu(norm(self.norm, "norm0")(x, train))
        x = overlapping_max_pool(x) if self.large else x
        done = 0
        for stage, blocks in enumerate(self.blocks):
            for i in range(1, blocks + 1):
                stride = 2 if stage and i == 1 else 1
                width, name = self.width * 2**stage, f"stage{stage + 1}_{i}"
                if self.bottleneck:
                    x = Bottleneck(width, stride, self.norm, name=name)(x, train)
                else:
                    x = Block(width, stride, self.norm, self.pooled, name=name)(x, train)
                tap(self, f"block{done + i}", x)
            done += blocks
        features = flatten(x) if self.pooled else averaged(self, x)
        return Dense(self.classes, name="head")(features), features
