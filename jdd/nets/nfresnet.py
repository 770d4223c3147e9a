"""NF-ResNet (Brock et al. 2021): a residual net whose scale holds without normalisation.

    W_hat = g (W - mean W) / sqrt(fan_in (var W + eps)), mean and variance of each output's kernel
    x_l+1 = s(x_l) + alpha k_l f_l(gamma act(x_l) / sd_l)

``gamma`` makes the variance of act(z), z ~ N(0, 1), one. ``sd_l`` is the standard deviation of x_l
expected at the start: the variance is 1 at the stem, grows by alpha^2 with each block, and counts
as 1 again where the first block of a stage starts a new shortcut s, a 1x1 convolution of the scaled
activation, averaged over 2x2 windows where it halves the map (which lowers the variance of maps
whose neighbours differ; the authors' recursion leaves that out); elsewhere s(x) = x. Without batch
statistics the images of a batch do not meet, and trajectories of such nets can be matched.

``skipinit`` gives each block a learned factor k_l, 0 at the start; without it k_l is 1.

Source: Brock, De & Smith, Characterizing signal propagation to close the performance gap in
unnormalized ResNets, ICLR 2021, sections 3 and 4; SkipInit: De & Smith, NeurIPS 2020. Tensor names
and eps are timm's, so that its weights can be read (``jdd/pretrained/imported.py``).
"""

from __future__ import annotations

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jdd.errors import BadInput
from jdd.nets import bilinear
from jdd.nets.base import Conv, Dense, averaged, declared, tap, wide
from jdd.nets.conv import avg_pool, overlapping_max_pool
from jdd.nets.convnet import ACTIVATIONS

ALPHA = 0.2  # weight of a residual branch
EPS = 1e-5  # added to the variance of a kernel

# The authors' constants, estimated from samples (0.06 % above the integral for relu), because
# published weights were trained with them.
GAMMA = {
    "relu": 1.7139588594436646,
    "sigmoid": 4.803835391998291,
    "leaky": 1.70590341091156,
    "swish": 1.7881293296813965,
}
# depth -> (blocks of the four stages, bottleneck)
DEPTHS: dict[int, tuple[tuple[int, ...], bool]] = {
    10: ((1, 1, 1, 1), False),
    18: ((2, 2, 2, 2), False),
    26: ((2, 2, 2, 2), True),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
}


def standardised(kernel: jax.Array, gain: jax.Array) -> jax.Array:
    """Return W_hat of the module's text.

    Args:
      kernel: W, [kh, kw, c, o].
      gain: g, [o].
    """
    centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
    var = (centred * centred).mean((0, 1, 2), keepdims=True)
    fan_in = math.prod(kernel.shape[:3])
    return centred * lax.rsqrt(fan_in * (var + EPS)) * wide(gain, kernel)


def deviations(blocks: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
    """Return sd_l of the module's text, of each block of each stage."""
    var, found = 1.0, []
    for count in blocks:
        stage = []
        for i in range(count):
            stage.append(math.sqrt(var))
            var = (1.0 if i == 0 else var) + ALPHA**2
        found.append(tuple(stage))
    return tuple(found)


def blocks_of(depth: int) -> tuple[tuple[int, ...], bool]:
    """Return the blocks of each stage, and whether they are bottlenecks.

    Raises:
      BadInput: a depth that is none of ``DEPTHS``.
    """
    if depth not in DEPTHS:
        allowed = f"one of {', '.join(map(str, DEPTHS))}, the layers of NFResNet"
        raise BadInput("config.net.depth", str(depth), allowed)
    return DEPTHS[depth]


class ScaledConv(Conv):
    """Convolution with the standardised kernel W_hat, a gain of each output, and a bias."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tap(self, "input", x, "convs")
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", declared, shape)
        gain = self.param("gain", declared, (self.features,))
        y = bilinear.conv(x, standardised(kernel, gain), self.stride, self.padding)
        return y + wide(self.param("bias", declared, (self.features,)), y)


class Block(nn.Module):
    """One residual block, [n, h, w, c] -> [n, h / stride, w / stride, o], rounded up.

    The branch is two 3x3 convolutions, or 1x1, 3x3 and 1x1 where ``bottleneck``, which narrows it
    to a quarter of ``features``.
    """

    features: int
    stride: int
    deviation: float
    bottleneck: bool
    act: str
    skipinit: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        def scaled(y: jax.Array) -> jax.Array:
            return ACTIVATIONS[self.act](y) * GAMMA[self.act]

        y = scaled(x) / self.deviation
        if self.stride != 1 or x.shape[-1] != self.features:
            pooled = _halved(y) if self.stride == 2 else y
            x = ScaledConv(self.features, 1, 1, 0, name="shortcut")(pooled)
        if self.bottleneck:
            narrow = self.features // 4
            y = ScaledConv(narrow, 1, 1, 0, name="conv1")(y)
            y = ScaledConv(narrow, 3, self.stride, 1, name="conv2")(scaled(y))
            y = ScaledConv(self.features, 1, 1, 0, name="conv3")(scaled(y))
        else:
            y = ScaledConv(self.features, 3, self.stride, 1, name="conv1")(y)
            y = ScaledConv(self.features, 3, 1, 1, name="conv2")(scaled(y))
        if self.skipinit:
            y = y * self.param("skipinit_gain", declared, ())
        return x + ALPHA * y


class NFResNet(nn.Module):
    """Stem, four stages of blocks, activation, mean over the map, linear layer.

    ``width`` is the first stage's (a bottleneck's output has four times as many channels); each
    later stage has twice the channels and half the side. ``depth``: one of ``DEPTHS``. The stem is
    a 3x3 convolution of stride 1; ``large``: 7x7 of stride 2 and a 3x3 max pooling of stride 2.
    """

    classes: int
    width: int = 64
    depth: int = 18
    act: str = "relu"
    skipinit: bool = False
    large: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        del train
        blocks, bottleneck = blocks_of(self.depth)
        size, stride = (7, 2) if self.large else (3, 1)
        x = ScaledConv(self.width, size, stride, size // 2, name="conv0")(x)
        x = overlapping_max_pool(x) if self.large else x
        done = 0
        for stage, expected in enumerate(deviations(blocks)):
            features = self.width * 2**stage * (4 if bottleneck else 1)
            for i, deviation in enumerate(expected, 1):
                stride = 2 if stage and i == 1 else 1
                block = Block(
                    features, stride, deviation, bottleneck, self.act, self.skipinit,
                    name=f"stage{stage + 1}_{i}",
                )  # fmt: skip
                x = block(x)
                done += 1
                tap(self, f"block{done}", x)
        features_out = averaged(self, ACTIVATIONS[self.act](x))
        return Dense(self.classes, name="head")(features_out), features_out


def _halved(x: jax.Array) -> jax.Array:
    """Average over 2x2 windows, stride 2; of a last odd row or column alone.

    [n, h, w, c] -> [n, (h + 1) // 2, (w + 1) // 2, c], the size of a 3x3 convolution of stride 2.
    """
    odd = [(0, side % 2) for side in x.shape[1:3]]
    if any(after for _, after in odd):  # an edge that is repeated is its own mean
        x = jnp.pad(x, ((0, 0), *odd, (0, 0)), mode="edge")
    return avg_pool(x)
