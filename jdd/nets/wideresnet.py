"""WRN-16-2 (Zagoruyko & Komodakis 2016, Table 1): a teacher of G-VBSM, without dropout."""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, averaged, tap
from jdd.nets.norm import BatchNorm


class Preactivated(nn.Module):
    """Norm, ReLU and 3x3 convolution, twice, added to the input.

    If the shape changes, a 1x1 convolution replaces the identity, after norm and ReLU.
    """

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = nn.relu(BatchNorm(name="norm1")(x, train))
        if self.stride != 1 or x.shape[-1] != self.features:
            x = Conv(self.features, 1, self.stride, 0, bias=False, name="shortcut")(y)
        y = Conv(self.features, stride=self.stride, bias=False, name="conv1")(y)
        y = nn.relu(BatchNorm(name="norm2")(y, train))
        return x + Conv(self.features, bias=False, name="conv2")(y)


class WideResNet(nn.Module):
    """Stem, three stages of ``(depth - 4) / 6`` blocks, norm, ReLU, mean, one linear layer.

    The stem has ``width`` channels, the stages ``widen`` times 1, 2 and 4 times as many.
    """

    classes: int
    width: int = 16
    depth: int = 16
    widen: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        x = Conv(self.width, bias=False, name="conv0")(x)
        blocks = (self.depth - 4) // 6
        for stage in range(3):
            for i in range(1, blocks + 1):
                stride = 2 if stage and i == 1 else 1
                width, name = self.width * self.widen * 2**stage, f"stage{stage + 1}_{i}"
                x = Preactivated(width, stride, name=name)(x, train)
                tap(self, f"block{blocks * stage + i}", x)
        features = averaged(self, nn.relu(BatchNorm(name="norm4")(x, train)))
        return Dense(self.classes, name="head")(features), features
