"""ConvNet: the net of the distillation papers (Gidaris & Komodakis 2018; DC, Zhao et al. 2021).

``depth`` blocks of Conv3x3 -> norm -> activation -> pool 2x2, then one linear layer. Images of one
channel get padding 3 in the first convolution, which makes MNIST's 28 pixels 32.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax

from jdd.nets.base import Conv, Dense, flatten, tap
from jdd.nets.conv import avg_pool, greater, max_pool
from jdd.nets.folded import conv_instance_norm
from jdd.nets.norm import norm

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "sigmoid": nn.sigmoid,
    "leaky": lambda x: nn.leaky_relu(x, 0.01),
    "swish": nn.swish,
}
POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "avg": avg_pool,
    "max": max_pool,
    "none": lambda x: x,
}
# The same over the four places of a window on axis 1, the layout of ``folded.py``.
WINDOW_POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "avg": lambda x: 0.25 * ((x[:, 0] + x[:, 1]) + (x[:, 2] + x[:, 3])),
    "max": lambda x: greater(greater(x[:, 0], x[:, 1]), greater(x[:, 2], x[:, 3])),
}


def first_padding(channels: int) -> int:
    """Padding of the first 3x3 convolution."""
    return 3 if channels == 1 else 1


class ConvNet(nn.Module):
    """ConvNet (see the module docstring).

    ``pool="none"`` does not reduce the maps. ``frozen`` selects convolutions that are fast for
    constant weights; derivatives with respect to the weights may be slow.
    """

    classes: int
    width: int = 128
    depth: int = 3
    norm: str = "instance"
    act: str = "relu"
    pool: str = "avg"
    frozen: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        for i in range(1, self.depth + 1):
            padding = first_padding(x.shape[-1]) if i == 1 else 1
            if i == 1 and self._folds(x, padding):
                x = self._folded(x, padding)
                continue
            few = self.depth <= 4 and not self.frozen
            x = Conv(self.width, padding=padding, few=few, name=f"conv{i}")(x)
            x = norm(self.norm, f"norm{i}")(x, train)
            x = POOLS[self.pool](ACTIVATIONS[self.act](x))
            tap(self, f"block{i}", x)
        features = flatten(x)
        return Dense(self.classes, name="head")(features), features

    def _folds(self, x: jax.Array, padding: int) -> bool:
        """True if the first block is faster as one product: on CPU, without taps."""
        grown = [side + 2 * padding - 2 for side in x.shape[1:3]]
        return (
            jax.default_backend() == "cpu"
            and self.norm == "instance"
            and self.pool in WINDOW_POOLS
            and 9 * x.shape[-1] <= self.width
            and not any(side % 2 for side in grown)
            and not self.is_mutable_collection("taps")
            and not self.is_initializing()
        )

    def _folded(self, x: jax.Array, padding: int) -> jax.Array:
        params = self.variables["params"]
        kernel, affine = params["conv1"]["kernel"], params["norm1"]
        y = conv_instance_norm(x, kernel, affine["scale"], affine["bias"], padding)
        y = WINDOW_POOLS[self.pool](ACTIVATIONS[self.act](y))
        rows, cols = (side // 2 + padding - 1 for side in x.shape[1:3])
        return y.reshape(len(y), rows, cols, -1)
