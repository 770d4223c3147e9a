"""Two towers: an image net and a text projection that meet in one embedding space.

    u = f(x) / |f(x)|,  v = h(e) / |h(e)|,  logits_ij = <u_i, v_j> / tau
    h(e) = LN(p + W2 gelu(p) + b2),  p = W1 e + b1

f is any net of ``jdd/nets`` whose last layer maps to the embedding; e is the vector of a text. h is
one of ``TEXT_TOWERS``, named after the image net and '+'; above is the default, ``residual``:

    linear    h(e) = W e + b
    mlp       h(e) = W2 gelu(W1 e + b1) + b2

Source: the projection head of Wu et al. (Vision-Language Dataset Distillation, TMLR 2024); theirs
has dropout of 0.1 and an image net without a layer to the embedding.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jdd import nets
from jdd.errors import BadInput
from jdd.nets.base import Dense, Net, Output, Taps, Variables, draw

TAU = 0.07
_SHARED = 0  # seed of the image tower that all nets start with
_LENGTH = 1e-12  # under the root of a squared length: its derivative at 0 is finite


class TextHead(nn.Module):
    """h of the module's text: [n, d] -> [n, size]."""

    size: int

    @nn.compact
    def __call__(self, e: jax.Array) -> jax.Array:
        p = Dense(self.size, name="in")(e)
        x = p + Dense(self.size, name="out")(nn.gelu(p, approximate=False))
        centred = x - jnp.mean(x, axis=-1, keepdims=True)
        x = centred * jax.lax.rsqrt(jnp.mean(jnp.square(centred), axis=-1, keepdims=True) + 1e-5)
        scale = self.param("scale", nn.initializers.ones, (self.size,))
        bias = self.param("bias", nn.initializers.zeros, (self.size,))
        return x * scale[None] + bias[None]


class LinearHead(nn.Module):
    """One layer: [n, d] -> [n, size]."""

    size: int

    @nn.compact
    def __call__(self, e: jax.Array) -> jax.Array:
        out: jax.Array = Dense(self.size, name="out")(e)
        return out


class MLPHead(nn.Module):
    """Two layers: [n, d] -> [n, size]."""

    size: int

    @nn.compact
    def __call__(self, e: jax.Array) -> jax.Array:
        p = nn.gelu(Dense(self.size, name="in")(e), approximate=False)
        out: jax.Array = Dense(self.size, name="out")(p)
        return out


TEXT_TOWERS: dict[str, Callable[[int], nn.Module]] = {
    "residual": TextHead, "linear": LinearHead, "mlp": MLPHead,
}  # fmt: skip
TEXT_TOWER = "residual"


def parts(name: str) -> tuple[str, str]:
    """Return the names of the image net and of the text tower: ConvNet+linear, or ConvNet alone."""
    image, _, text = name.partition("+")
    return image, text or TEXT_TOWER


@functools.lru_cache(maxsize=64)
def two_towers(
    name: str,
    shape: tuple[int, int, int],
    text_size: int,
    size: int,
    options: tuple[tuple[str, Any], ...] = (),
    tau: float = TAU,
    shared: bool = False,
) -> Net:
    """Return the two towers as one net.

    ``apply(variables, {"image": x, "text": e})`` gives logits ``[n, m]`` of n images x
    ``[n, h, w, c]`` and m text vectors e ``[m, d]``, and ``embeddings`` u ``[n, size]``, v
    ``[m, size]``; one input alone gives its embedding alone, and no logits. Parameters lie under
    "image" and "text".

    ``x["mix"]``, with "order" int ``[n]`` and "weight" scalar, blends every pair's representations
    with those of the pair order_i, before the towers' last projections:

        z_i <- weight z_i + (1 - weight) z_order_i

    for z the input of f's last layer (a linear one, whose outputs are blended) and for z = e.

    Args:
      name: of the image net; with a text tower after '+' if it is not the default.
      shape: (h, w, c) of an image.
      text_size: d, the length of a text vector.
      size: the embedding's length.
      options: of the image net, as sorted pairs.
      tau: the temperature of the logits.
      shared: every net starts with the same image tower, a constant draw, whatever the key.

    Raises:
      BadInput: as ``nets.make``; an unknown text tower.
    """
    first, second = parts(name)
    if second not in TEXT_TOWERS:
        found = f"unknown text tower {second!r}"
        raise BadInput("config.nets", found, f"one of {', '.join(TEXT_TOWERS)}")
    image, head = nets.make(first, shape, size, **dict(options)), TEXT_TOWERS[second](size)

    def text_shapes() -> Variables:
        return dict(head.init(jax.random.key(0), jnp.zeros((1, text_size))))

    @jax.jit
    def init(key: jax.Array) -> Variables:
        own = image.init(jax.random.key(_SHARED) if shared else jax.random.fold_in(key, 0))
        text = draw(jax.random.fold_in(key, 1), jax.eval_shape(text_shapes))
        found: Variables = {"params": {"image": own["params"], "text": text["params"]}}
        return found | {k: {"image": v} for k, v in own.items() if k != "params"}

    def apply(
        variables: Variables, x: dict[str, Any], train: bool = False, taps: Taps = False
    ) -> Output:
        found: dict[str, jax.Array] = {}
        blend = functools.partial(_blended, mix=x.get("mix"))
        stats, tapped = variables.get("batch_stats", {}), {}
        if "image" in x:
            own = {kind: tree["image"] for kind, tree in variables.items()}
            out = image.apply(own, x["image"], train=train, taps=taps)
            found["image"], tapped = _unit(blend(out.logits)), out.taps
            stats = {"image": out.stats} if stats else stats
        if "text" in x:
            text = head.apply({"params": variables["params"]["text"]}, blend(x["text"]))
            found["text"] = _unit(jnp.asarray(text))
        both = len(found) == 2
        logits = found["image"] @ found["text"].T / tau if both else jnp.zeros(())
        features = found["image"] if "image" in found else found["text"]
        return Output(logits, features, stats, tapped, found)

    return Net(name, init, apply, shape)


def _blended(z: jax.Array, mix: dict[str, jax.Array] | None) -> jax.Array:
    """Return w z_i + (1 - w) z_order_i, ``[n, d]``; z without ``mix``."""
    if mix is None:
        return z
    weight = mix["weight"].astype(z.dtype)
    return weight * z + (1 - weight) * z[mix["order"]]


def _unit(x: jax.Array) -> jax.Array:
    """Return rows of length 1, ``[n, size]``."""
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + _LENGTH)
