"""ShuffleNetV2 (Ma et al. 2018, Table 5): a teacher of G-VBSM.

A unit convolves one half of the channels, passes the other on, and interleaves the two. For images
below 64 pixels the stem has stride 1 and no max pooling, as is usual for CIFAR.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets.base import Conv, Dense, Depthwise, averaged, tap
from jdd.nets.conv import overlapping_max_pool
from jdd.nets.norm import BatchNorm

BLOCKS = (4, 8, 4)  # of stages 2, 3 and 4
STEM, LAST = 24, 1024  # channels, for both x0.5 and x1.0
SMALL = 64  # pixels; below it on the shorter side, the stem does not reduce the map


def shuffle(x: jax.Array) -> jax.Array:
    """Interleave the two halves of the channels: a1 a2 b1 b2 -> a1 b1 a2 b2."""
    *place, c = x.shape
    return x.reshape(*place, 2, c // 2).swapaxes(-2, -1).reshape(x.shape)


class Unit(nn.Module):
    """Figure 3: stride 1 passes half of the channels on (c); stride 2 computes both halves (d).

    [n, h, w, c] -> [n, ceil(h / stride), ceil(w / stride), ``features``].
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        half = self.features // 2
        if self.stride == 1:
            x, y = jnp.split(x, 2, axis=-1)
        else:
            y = x
            x = Depthwise(stride=self.stride, name="conv4")(x)
            x = BatchNorm(name="norm4")(x, train)
            x = Conv(half, 1, padding=0, bias=False, name="conv5")(x)
            x = nn.relu(BatchNorm(name="norm5")(x, train))
        y = Conv(half, 1, padding=0, bias=False, name="conv1")(y)
        y = nn.relu(BatchNorm(name="norm1")(y, train))
        y = BatchNorm(name="norm2")(Depthwise(stride=self.stride, name="conv2")(y), train)
        y = Conv(half, 1, padding=0, bias=False, name="conv3")(y)
        y = nn.relu(BatchNorm(name="norm3")(y, train))
        return shuffle(jnp.concatenate([x, y], axis=-1))


class ShuffleNetV2(nn.Module):
    """Stem, three stages of 16 units, a 1x1 convolution, the mean over the map, one linear layer.

    ``width`` is the first stage's channels, an even number, which double with each stage: 48 is the
    paper's x0.5, 116 its x1.0. The stem has 24 and the last convolution 1024 at every width.
    """

    classes: int
    width: int = 48

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        small = min(x.shape[1:3]) < SMALL
        x = Conv(STEM, stride=1 if small else 2, bias=False, name="conv1")(x)
        x = nn.relu(BatchNorm(name="norm1")(x, train))
        x = x if small else overlapping_max_pool(x)
        done = 0
        for stage, blocks in enumerate(BLOCKS):
            for i in range(1, blocks + 1):
                stride, name = 2 if i == 1 else 1, f"stage{stage + 2}_{i}"
                x = Unit(self.width * 2**stage, stride, name=name)(x, train)
                tap(self, f"block{done + i}", x)
            done += blocks
        x = Conv(LAST, 1, padding=0, bias=False, name="conv5")(x)
        features = averaged(self, nn.relu(BatchNorm(name="norm5")(x, train)))
        return Dense(self.classes, name="head")(features), features
