"""FRePo's net: a ConvNet whose channels double from block to block (Zhou et al., NeurIPS 2022).

    x -> conv1 -> ReLU -> pool -> [norm -> conv -> ReLU -> pool] ... -> flatten -> linear

Convolutions are 3x3 with bias, the pool averages 2x2. A normalisation precedes every convolution
except the first. Sets are distilled with batch norm and evaluated without normalisation. The
running statistics are flax's at momentum 0.1: a step's own statistics have weight 0.9, the variance
is biased. Images of one channel get padding 3 in the first convolution.
"""

from __future__ import annotations

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import avg_pool
from jdd.nets.convnet import first_padding
from jdd.nets.norm import BatchNorm, norm


class FRePoNet(nn.Module):
    """FRePo's net (see the module docstring); block i has ``width * 2^(i-1)`` channels."""

    classes: int
    width: int = 128
    depth: int = 3
    norm: str = "none"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        for i in range(1, self.depth + 1):
            padding = first_padding(x.shape[-1]) if i == 1 else 1
            if i > 1 and self.norm == "batch":
                x = BatchNorm(momentum=0.9, unbiased=False, name=f"norm{i}")(x, train)
            elif i > 1:
                x = norm(self.norm, f"norm{i}")(x, train)
            channels = self.width << (i - 1)
            x = Conv(channels, padding=padding, few=self.depth <= 4, name=f"conv{i}")(x)
            x = avg_pool(nn.relu(x))
            tap(self, f"block{i}", x)
        features = flatten(x)
        return Dense(self.classes, name="head")(features), features
