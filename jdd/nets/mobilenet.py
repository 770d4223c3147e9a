"""MobileNetV2 (Sandler et al. 2018, Table 2): a teacher and a student of G-VBSM and RDED.

A block widens by a 1x1 convolution, convolves each channel separately and narrows again; its narrow
ends are linear. For images below 64 pixels the stem and the second stage have stride 1, as is usual
for CIFAR, since the published strides would leave no map. No dropout before the head (torchvision
adds one).
"""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets.base import Conv, Dense, Depthwise, averaged, tap
from jdd.nets.norm import BatchNorm

# expansion, channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SMALL = 64  # pixels; below it on the shorter side, the strides are those for small images


def relu6(x: jax.Array) -> jax.Array:
    """min(max(x, 0), 6); at 0 and 6 the gradient is 0, as in PyTorch, not 1/2; NaN stays NaN."""
    return jnp.where(x >= 6, 6.0, nn.relu(x))


def rounded(channels: float) -> int:
    """Return the nearest multiple of 8, at least 8; the next higher if it removes more than 10%."""
    near = max(8, int(channels + 4) // 8 * 8)
    return near + 8 if near < 0.9 * channels else near


class InvertedResidual(nn.Module):
    """1x1 (not for expansion 1), depthwise 3x3, 1x1: [n, h, w, c] -> [n, h / s, w / s, features].

    With a shortcut if the stride is 1 and the number of channels stays.
    """

    features: int
    stride: int
    expansion: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        y = x
        if self.expansion > 1:
            inner = self.expansion * x.shape[-1]
            y = Conv(inner, 1, padding=0, bias=False, name="conv1")(y)
            y = relu6(BatchNorm(name="norm1")(y, train))
        y = Depthwise(stride=self.stride, name="conv2")(y)
        y = relu6(BatchNorm(name="norm2")(y, train))
        y = Conv(self.features, 1, padding=0, bias=False, name="conv3")(y)
        y = BatchNorm(name="norm3")(y, train)
        # Decided by the stride: a map of 1x1 has the same shape at stride 2 too.
        return x + y if self.stride == 1 and x.shape[-1] == self.features else y


class MobileNetV2(nn.Module):
    """Stem, seven stages of 17 blocks, a 1x1 convolution, the mean over the map, one linear layer.

    ``width`` / 32 is the paper's width multiplier, applied to all channels and ``rounded``; the
    1280 channels of the last convolution never get fewer.
    """

    classes: int
    width: int = 32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        by, small = self.width / 32, min(x.shape[1:3]) < SMALL
        x = Conv(rounded(32 * by), stride=1 if small else 2, bias=False, name="conv0")(x)
        x = relu6(BatchNorm(name="norm0")(x, train))
        done = 0
        for stage, (expansion, channels, blocks, first) in enumerate(STAGES, 1):
            for i in range(1, blocks + 1):
                stride = first if i == 1 and not (small and stage == 2) else 1
                block = InvertedResidual(
                    rounded(channels * by), stride, expansion, name=f"stage{stage}_{i}"
                )
                x = block(x, train)
                tap(self, f"block{done + i}", x)
            done += blocks
        x = Conv(rounded(1280 * max(1.0, by)), 1, padding=0, bias=False, name="conv8")(x)
        features = averaged(self, relu6(BatchNorm(name="norm8")(x, train)))
        return Dense(self.classes, name="head")(features), features
