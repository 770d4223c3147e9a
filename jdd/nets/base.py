"""The interface of a net, two pure functions, and the layers that all nets are made of.

Weights and biases are initialised as by PyTorch, ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``, since the
published settings were tuned for that. A forward pass fixes no dtype: float64 variables and images
give float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd.nets import bilinear
from jdd.nets.conv import conv, depthwise

Variables = dict[str, Any]
Taps = bool | Literal["all", "map"]


class Output(NamedTuple):
    """Result of a forward pass.

    Attributes:
      logits: [n, classes].
      features: [n, d], flattened, the input of the classifier.
      stats: the new batch statistics (updated when training), {} without batch norm.
      taps: with ``taps=True`` the inputs of the normalisations, named by module path as their
        parameters are, and the outputs of the blocks ("block1", ...); with ``taps="all"`` also the
        inputs of the convolutions ("conv1", "stage2_1/conv1"); with ``taps="map"`` only the last
        map [n, h, w, d] ("map"), of nets whose head reads its mean; else {}. jit sorts dicts:
        ``order.py`` gives the order in which the layers run.
      embeddings: unit vectors by input ("image", "text") of two towers; {} of other nets.
    """

    logits: jax.Array
    features: jax.Array
    stats: Variables
    taps: dict[str, jax.Array]
    embeddings: dict[str, jax.Array] = {}


PART = 20 << 20  # bytes of activations per part of a batch, on CPU


class Net(NamedTuple):
    """A net as two pure functions.

    ``init(key) -> variables``, ``apply(variables, x, train=False, taps=False) -> Output``, with x
    [n, h, w, c] and ``taps`` False, True, "all" or "map". Variables hold "params" and, with batch
    norm, "batch_stats".
    """

    name: str
    init: Callable[[jax.Array], Variables]
    apply: Callable[..., Output]
    shape: tuple[int, int, int] = (0, 0, 0)

    def activations(self, images: int) -> int:
        """Return the bytes of the ``taps=True`` outputs of one forward pass, in float32."""

        def taps(x: jax.Array) -> dict[str, jax.Array]:
            return self.apply(self.init(jax.random.key(0)), x, train=True, taps=True).taps

        found = jax.eval_shape(taps, jax.ShapeDtypeStruct((images, *self.shape), jnp.float32))
        return 4 * sum(leaf.size for leaf in jax.tree.leaves(found))

    def part(self, images: int, whole: bool = False, concurrent: int = 1) -> int:
        """Return how many of a batch's images to process at a time, a divisor of their number.

        On accelerators: all of them. On CPU: the largest divisor whose activations take at most
        ``PART`` bytes, which the caches hold, unless it is too small to be efficient (of 37 images
        it would be 1).

        Args:
          images: the number of images in a batch.
          whole: the images depend on each other (batch norm) and have to stay together.
          concurrent: the number of batches processed at a time, which share the caches.
        """
        if whole or jax.default_backend() != "cpu":
            return images
        most = max(1, PART // concurrent // self.activations(1))
        divisors = [size for size in range(1, images + 1) if images % size == 0]
        found = max(size for size in divisors if size <= most)
        return found if 4 * found >= min(most, images) else min(s for s in divisors if s > found)


def wide(vector: jax.Array, like: jax.Array) -> jax.Array:
    """Reshape a per-channel vector to the rank of ``like``: no rank is promoted silently."""
    return vector.reshape((1,) * (like.ndim - vector.ndim) + vector.shape)


# Layers only declare their variables; ``draw`` initialises them.
declared = nn.initializers.zeros_init()


class Conv(nn.Module):
    """Square convolution.

    ``few``: its net has few convolutions (``conv.py``). ``bilinear``: by the forms of
    ``bilinear.py``, with Winograd's.
    """

    features: int
    size: int = 3
    stride: int = 1
    padding: int = 1
    bias: bool = True
    few: bool = False
    bilinear: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tap(self, "input", x, "convs")
        shape = (self.size, self.size, x.shape[-1], self.features)
        kernel = self.param("kernel", declared, shape)
        if self.bilinear:
            y = bilinear.conv(x, kernel, self.stride, self.padding, winograd=True)
        else:
            y = conv(x, kernel, self.stride, self.padding, few=self.few)
        if self.bias:
            y = y + wide(self.param("bias", declared, (self.features,)), y)
        return y


class Depthwise(nn.Module):
    """Square convolution of each channel by itself, without bias; kernel [size, size, 1, c]."""

    size: int = 3
    stride: int = 1
    padding: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tap(self, "input", x, "convs")
        # The 1 counts the inputs per place: fan_in is size * size, as in PyTorch.
        kernel = self.param("kernel", declared, (self.size, self.size, 1, x.shape[-1]))
        return depthwise(x, kernel, self.stride, self.padding)


class Dense(nn.Module):
    """Linear layer."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = x @ self.param("kernel", declared, (x.shape[-1], self.features))
        return y + wide(self.param("bias", declared, (self.features,)), y)


def tap(module: nn.Module, name: str, value: jax.Array, where: str = "taps") -> None:
    """Output a tensor under ``name``; free unless the caller requests ``where``.

    Inputs of convolutions are separate, in "convs": memory is planned by the "taps".
    """
    module.sow(where, name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


def averaged(module: nn.Module, x: jax.Array) -> jax.Array:
    """[n, h, w, d] -> [n, d], the mean over the map that the head reads; the map is tapped."""
    tap(module, "map", x, "maps")
    return x.mean((1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """[n, ...] -> [n, d]."""
    return x.reshape(x.shape[0], -1)


INITS = ("torch", "xavier", "lecun")
_TOKENS = ("cls_token", "pos_embed")  # learned inputs of a transformer
_CUT = 0.87962566103423978  # standard deviation of a normal variable truncated at 2


def draw(key: jax.Array, shapes: Variables, start: str = "torch") -> Variables:
    """Initialise declared variables, float32.

    ``start='torch'``: kernels and their biases from U(-b, b), b = 1 / sqrt(fan_in); scales and
    running variances are 1, other biases and running means 0. 'xavier': kernels from
    N(0, 2 / (fan_in + fan_out)), their biases 0 (Glorot & Bengio 2010, gain 1). 'lecun': kernels
    normal of variance 1 / fan_in, truncated at 2 deviations, their biases 0 (flax's default). Gains
    are 1; tokens and positions of transformers come from N(0, 0.02^2), truncated at 2 deviations.
    One draw serves the whole net: XLA needs seconds to compile a draw for every layer.
    """

    def values(layer: Variables) -> int:
        if "kernel" in layer:
            return sum(math.prod(v.shape) for k, v in layer.items() if k != "gain")
        return sum(values(child) for child in layer.values() if isinstance(child, dict))

    count = values(shapes)
    if start == "xavier":
        drawn = jax.random.normal(key, (count,), jnp.float32)
    elif start == "lecun":
        drawn = jax.random.truncated_normal(key, -2.0, 2.0, (count,), jnp.float32) / _CUT
    else:
        drawn = jax.random.uniform(key, (count,), jnp.float32, -1, 1)
    used = 0

    def fill(layer: Variables) -> Variables:
        nonlocal used
        filled: Variables = {}
        for name, leaf in sorted(layer.items()):
            if isinstance(leaf, dict):
                filled[name] = fill(leaf)
            elif name in _TOKENS:
                own = jax.random.fold_in(key, _TOKENS.index(name))
                normal = jax.random.truncated_normal(own, -2.0, 2.0, leaf.shape, jnp.float32)
                filled[name] = normal * (0.02 / _CUT)
            elif "kernel" in layer and name != "gain":
                scale = _scale(layer["kernel"].shape, start)
                scale = 0.0 if start != "torch" and name == "bias" else scale
                size = math.prod(leaf.shape)
                values_here = drawn[used : used + size].reshape(leaf.shape)
                filled[name] = values_here * scale
                used += size
            else:
                value = 1 if name in ("scale", "var", "gain") else 0
                filled[name] = jnp.full(leaf.shape, value, jnp.float32)
        return filled

    return fill(shapes)


def _scale(kernel: tuple[int, ...], start: str) -> float:
    field = math.prod(kernel[:-2])
    fan_in, fan_out = field * kernel[-2], field * kernel[-1]
    return math.sqrt(2 / (fan_in + fan_out)) if start == "xavier" else 1 / math.sqrt(fan_in)


def _flat(tree: dict[str, Any], path: tuple[str, ...] = ()) -> dict[str, jax.Array]:
    flat: dict[str, jax.Array] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= _flat(value, (*path, name))
        else:
            # A layer taps its input as "input": the tap then has the layer's own path.
            flat["/".join((*path, name) if name != "input" else path)] = value
    return flat


def build(name: str, module: nn.Module, shape: tuple[int, int, int], start: str = "torch") -> Net:
    """Wrap a Linen module ``(x, train) -> (logits, features)`` as a Net for images of ``shape``.

    ``start``: the initialisation, one of ``INITS``.
    """

    def declare() -> Variables:
        variables = module.init(jax.random.key(0), jnp.zeros((1, *shape)), False)
        return {k: v for k, v in variables.items() if k not in ("taps", "convs", "maps")}

    @jax.jit
    def init(key: jax.Array) -> Variables:
        return draw(key, jax.eval_shape(declare), start)

    def apply(
        variables: Variables, x: jax.Array, train: bool = False, taps: Taps = False
    ) -> Output:
        stats = variables.get("batch_stats", {})
        mutable = ["batch_stats"] * bool(stats and train) + ["taps"] * (taps in (True, "all"))
        mutable += ["convs"] * (taps == "all") + ["maps"] * (taps == "map")
        if not mutable:
            plain: Any = module.apply(variables, x, train)
            return Output(plain[0], plain[1], stats, {})
        results: Any = module.apply(variables, x, train, mutable=mutable)
        (logits, features), new = results
        kinds = ("taps", "convs", "maps")
        tapped = {name: a for kind in kinds for name, a in _flat(new.get(kind, {})).items()}
        return Output(logits, features, new.get("batch_stats", stats), tapped)

    return Net(name, init, apply, shape)
