"""Generator and critic of a conditional GAN: DiM's nets, for images of 8, 28, 32 and 8k pixels.

Generator, with s = side / 8 (4 for 28 and 32 pixels) and width w:

    z [latent] -> dense to s x s x w -> T -> 3 C -> T -> C -> T -> C_last -> tanh
    T = transposed convolution 4x4, stride 2 (doubles the side);  C = convolution 3x3

with batch norm and ReLU after every layer but the last; for 28 pixels the first T is 3x3 (4 -> 7).
The first ``classes`` entries of z are replaced by the one-hot class. Critic:

    8 convolutions 3x3 of strides 1, 2, 1, 2, 1, 1, 1, 2, each with layer norm over (h, w, c) and
    leaky ReLU (0.01) -> maximum over the map -> two heads: source [1] and class [classes]

Images of 8 pixels have small nets: dense to 2 x 2 x w -> T -> T -> C_last -> tanh, and 3
convolutions of strides 1, 2, 2. Images are pixels mapped to [-1, 1].

Source: DiM (Wang et al., 2023), section 3 and released code; the sizes other than 28 and 32 pixels
are jdd's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.nets.base import Conv, Dense, declared, draw, flatten, wide
from jdd.nets.conv import conv, greater
from jdd.nets.generator import Generator
from jdd.nets.norm import BatchNorm, LayerNorm

Tree = Any
Shape = tuple[int, int, int]
SLOPE = 0.01  # of the leaky ReLU
_STRIDES, _FEW_STRIDES = (1, 2, 1, 2, 1, 1, 1, 2), (1, 2, 2)


class Plan(NamedTuple):
    """Sides of the generator's first map, and its stages: (size of T's kernel, convolutions)."""

    first: tuple[int, int]
    stages: tuple[tuple[int, int], ...]


def plan(shape: Shape, where: str = "config.data.size") -> Plan:
    """Return the layers of the generator for images of ``shape``.

    Raises:
      BadInput: naming ``where``: no stack of doublings ends in these sides.
    """
    sides = shape[:2]
    if sides == (28, 28):
        return Plan((4, 4), ((3, 3), (4, 1), (4, 0)))
    if sides == (8, 8):
        return Plan((2, 2), ((4, 0), (4, 0)))
    if any(side % 8 or side < 16 for side in sides):
        allowed = "8x8, 28x28, or sides of 16 or more that are multiples of 8; such as "
        raise BadInput(
            where, f"a GAN of {sides[0]}x{sides[1]} images", f"{allowed}--config.data.size=32"
        )
    return Plan((sides[0] // 8, sides[1] // 8), ((4, 3), (4, 1), (4, 0)))


def conv_transposed(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2 and padding 1:

        y[n,p,q,o] = sum x[n,i,j,c] k[a,b,c,o]  over c and all i, j, a, b with
        p = 2i - 1 + a,  q = 2j - 1 + b

    Each of the four parities of (p, q) reads a window of 2x2 inputs: one convolution by a 2x2
    kernel of 4 o channels, whose maps are interleaved.

    Args:
      x: [n, h, w, c].
      kernel: [k, k, c, o], k = 4 or 3.

    Returns:
      [n, 2h, 2w, o] for k = 4, [n, 2h - 1, 2w - 1, o] for k = 3.
    """
    n, h, w, c = x.shape
    size, out = kernel.shape[0], kernel.shape[-1]
    kernel = jnp.pad(kernel, ((0, 4 - size), (0, 4 - size), (0, 0), (0, 0)))
    # Even places read (x[i-1], x[i]) by taps (3, 1), odd ones (x[i], x[i+1]) by taps (2, 0).
    taps = jnp.asarray([[3, 1], [2, 0]])
    parts = kernel[taps][:, :, taps]  # [parity, tap, parity, tap, c, o]
    joined = parts.transpose(1, 3, 4, 0, 2, 5).reshape(2, 2, c, 4 * out)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    maps = conv(padded, joined).reshape(n, h + 1, w + 1, 2, 2, out)
    rows = jnp.stack([maps[:, a : a + h, :, a] for a in (0, 1)], axis=2)
    both = jnp.stack([rows[:, :, :, b : b + w, b] for b in (0, 1)], axis=4)
    y = both.reshape(n, 2 * h, 2 * w, out)
    return y if size == 4 else y[:, : 2 * h - 1, : 2 * w - 1]


class ConvTransposed(nn.Module):
    """Transposed convolution of stride 2 with a bias; equal channels, so PyTorch's fan_in."""

    features: int
    size: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1], self.features)
        y = conv_transposed(x, self.param("kernel", declared, shape))
        return y + wide(self.param("bias", declared, (self.features,)), y)


class GeneratorNet(nn.Module):
    """Latent vectors [n, latent] -> images [n, h, w, c] in (-1, 1)."""

    plan: Plan
    channels: int
    width: int

    @nn.compact
    def __call__(self, z: jax.Array, train: bool) -> jax.Array:
        h, w = self.plan.first
        x = Dense(h * w * self.width, name="dense")(z)
        x = BatchNorm(name="norm0")(x[:, None, None], train)  # of every feature by itself
        x = nn.relu(x).reshape(-1, h, w, self.width)
        for i, (size, convs) in enumerate(self.plan.stages, 1):
            x = ConvTransposed(self.width, size, name=f"up{i}")(x)
            x = nn.relu(BatchNorm(name=f"up{i}_norm")(x, train))
            for j in range(1, convs + 1):
                x = Conv(self.width, name=f"conv{i}_{j}")(x)
                x = nn.relu(BatchNorm(name=f"conv{i}_{j}_norm")(x, train))
        return jnp.tanh(Conv(self.channels, name="last")(x))


class CriticNet(nn.Module):
    """Images [n, h, w, c] -> source [n] and class logits [n, classes]."""

    strides: tuple[int, ...]
    classes: int
    width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        for i, stride in enumerate(self.strides, 1):
            x = Conv(self.width, stride=stride, name=f"conv{i}")(x)
            x = nn.leaky_relu(LayerNorm(name=f"norm{i}")(x, False), SLOPE)
        x = flatten(_largest(x))
        return Dense(1, name="source")(x)[:, 0], Dense(self.classes, name="head")(x)


def _largest(x: jax.Array) -> jax.Array:
    """Return the maximum over places, [n, h, w, c] -> [n, c]; its derivative goes to one place."""
    places = list(jnp.moveaxis(x.reshape(x.shape[0], -1, x.shape[-1]), 1, 0))
    while len(places) > 1:
        pairs = zip(places[::2], places[1::2], strict=False)
        places = [greater(*pair) for pair in pairs] + places[len(places) // 2 * 2 :]
    return places[0]


class Pair(NamedTuple):
    """Generator and critic as pure functions over nested dicts of arrays.

    Attributes:
      init: ``key -> {"generator": params, "critic": params}``.
      stats: the generator's running statistics at the start.
      generate: ``(params, stats, z, labels, train) -> (images [n, h, w, c] in (-1, 1), stats)``;
        ``train`` normalises by the batch's statistics, and updates the running ones.
      critic_output: ``(params, images) -> (source [n], class logits [n, classes])``.
    """

    init: Callable[[jax.Array], Tree]
    stats: Callable[[], Tree]
    generate: Callable[[Tree, Tree, jax.Array, jax.Array, bool], tuple[jax.Array, Tree]]
    critic_output: Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array]]


def pair(shape: Shape, classes: int, latent: int, width: int, where: str = "config") -> Pair:
    """Return the nets for images of ``shape`` (h, w, c).

    Raises:
      BadInput: no such generator for these sides, or no entry of z is left for noise.
    """
    if latent <= classes:
        raise BadInput(
            f"{where}.gan.latent" if where == "config" else where,
            f"latent {latent}, of which {classes} are the class",
            f"{classes + 1} or more",
        )
    layers = plan(shape, "config.data.size" if where == "config" else where)
    strides = _FEW_STRIDES if len(layers.stages) == 2 else _STRIDES
    maker = GeneratorNet(layers, shape[2], width)
    critic = CriticNet(strides, classes, width)

    def declared_as(module: nn.Module, *args: Any) -> Tree:
        found = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))
        return {name: found[name] for name in ("params", "batch_stats") if name in found}

    makes = declared_as(maker, jnp.zeros((1, latent)), False)
    critic_weights = declared_as(critic, jnp.zeros((1, *shape)))

    def init(key: jax.Array) -> Tree:
        first, second = jax.random.split(key)
        return {
            "generator": draw(first, makes["params"]),
            "critic": draw(second, critic_weights["params"]),
        }

    def generate(
        params: Tree, stats: Tree, z: jax.Array, labels: jax.Array, train: bool
    ) -> tuple[jax.Array, Tree]:
        z = with_class(z, labels, classes)
        variables = {"params": params, "batch_stats": stats}
        if not train:
            return maker.apply(variables, z, False), stats  # type: ignore[return-value]
        images, new = maker.apply(variables, z, True, mutable=["batch_stats"])
        return images, new["batch_stats"]

    def critic_output(params: Tree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        return critic.apply({"params": params}, images)  # type: ignore[return-value]

    return Pair(
        init, lambda: draw(jax.random.key(0), makes["batch_stats"]), generate, critic_output
    )


def with_class(z: jax.Array, labels: jax.Array, classes: int) -> jax.Array:
    """Return z [n, latent] with its first ``classes`` entries replaced by one-hot labels."""
    return jnp.concatenate([jax.nn.one_hot(labels, classes, dtype=z.dtype), z[:, classes:]], axis=1)


def acgan(
    shape: tuple[int, int, int],
    classes: int,
    latent: int,
    width: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Generator:
    """Return the generator of a conditional GAN: x = (p - mean) / std.

    p = (tanh(...) + 1) / 2 are pixels in (0, 1). Params: ``weights``, and the running batch
    statistics ``stats``, by which it normalises: an image depends on its own z and class alone.

    Args:
      width: the channels of every layer.
      mean, std: the normalisation of its images, [c].
    """
    if type(width) is not int or width < 1 or {len(mean), len(std)} != {shape[2]}:
        raise TypeError("a width, and a mean and deviation of every channel")
    both = pair(shape, classes, latent, width, "the generator")

    def init(key: jax.Array) -> Tree:
        return {"weights": both.init(key)["generator"], "stats": both.stats()}

    def apply(params: Tree, z: jax.Array, labels: jax.Array) -> jax.Array:
        images, _ = both.generate(params["weights"], params["stats"], z, labels, False)
        return normalised(images, mean, std)

    return Generator(init, apply, latent)


def normalised(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return images x in [-1, 1] as inputs of nets: ((x + 1) / 2 - mean) / std by channel."""
    m, s = (wide(jnp.asarray(v, images.dtype), images) for v in (mean, std))
    return ((images + 1) / 2 - m) / s


def in_range(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Return inputs of nets as images in [-1, 1]: the inverse of ``normalised``."""
    m, s = (wide(jnp.asarray(v, images.dtype), images) for v in (mean, std))
    return 2 * (images * s + m) - 1
