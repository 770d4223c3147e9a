"""BERT's encoder (Devlin et al. 2019) as a pure function of tensors by their published names.

    x_0 = LN(word[id] + position + type[0])
    y = LN(x + W_o MSA(x)),  x' = LN(y + W_2 gelu(W_1 y + b_1) + b_2)

MSA is softmax(q k^T / sqrt(d / heads)) v over the tokens that are no padding; gelu is exact.
Kernels have PyTorch's layout [o, i]. It agrees with transformers' BertModel without dropout.

Source: BERT, NAACL 2019, section 3; Attention Is All You Need, NeurIPS 2017, section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

POOLS = ("cls", "mean")
_LAYER = "encoder.layer"


class Settings(NamedTuple):
    """Sizes of a BERT: ``hidden`` d, ``inner`` units of the MLP, ``words`` of the vocabulary."""

    words: int
    hidden: int
    layers: int
    heads: int
    inner: int
    positions: int
    types: int
    eps: float


def shapes(settings: Settings) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor by name."""
    d, inner = settings.hidden, settings.inner
    found = {
        "embeddings.word_embeddings.weight": (settings.words, d),
        "embeddings.position_embeddings.weight": (settings.positions, d),
        "embeddings.token_type_embeddings.weight": (settings.types, d),
    } | _norm("embeddings.LayerNorm", d)
    for i in range(settings.layers):
        found |= {f"{_LAYER}.{i}.{name}": shape for name, shape in _layer_shapes(d, inner).items()}
    return found


def _layer_shapes(d: int, inner: int) -> dict[str, tuple[int, ...]]:
    dense = {f"attention.self.{name}": (d, d) for name in ("query", "key", "value")}
    dense |= {"attention.output.dense": (d, d)}
    dense |= {"intermediate.dense": (inner, d), "output.dense": (d, inner)}
    found: dict[str, tuple[int, ...]] = {}
    for name, shape in dense.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return found | _norm("attention.output.LayerNorm", d) | _norm("output.LayerNorm", d)


def _norm(name: str, d: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (d,), f"{name}.bias": (d,)}


def stacked(tensors: Mapping[str, np.ndarray], settings: Settings) -> dict[str, Any]:
    """Return the weights of ``hidden_states``; the layers are stacked, so that one is compiled.

    Args:
      tensors: by the names of ``shapes``; others are left out.
    """
    first = {n: tensors[n] for n in shapes(settings) if n.startswith("embeddings")}
    layers = {
        name: np.stack([tensors[f"{_LAYER}.{i}.{name}"] for i in range(settings.layers)])
        for name in _layer_shapes(settings.hidden, settings.inner)
    }
    return {"embeddings": first, "layers": layers}


def hidden_states(
    weights: Mapping[str, Any], ids: jax.Array, mask: jax.Array, heads: int, eps: float
) -> jax.Array:
    """Return the last hidden states, [n, l, d].

    Args:
      weights: as ``stacked`` returns them.
      ids: tokens, [n, l], below the number of words.
      mask: [n, l], True where a token is no padding; at least one in each row.
      heads: of the attention; divides d.
      eps: added to the variance in LN.
    """
    own = weights["embeddings"]
    x = own["embeddings.word_embeddings.weight"][ids]
    places = own["embeddings.position_embeddings.weight"][: ids.shape[1]]
    x = x + places[None] + own["embeddings.token_type_embeddings.weight"][:1][None]
    x = _normed(own, "embeddings.LayerNorm", x, eps)

    def layer(x: jax.Array, own: Mapping[str, jax.Array]) -> tuple[jax.Array, None]:
        y = _linear(own, "attention.output.dense", _attention(own, x, mask, heads))
        y = _normed(own, "attention.output.LayerNorm", x + y, eps)
        inner = jax.nn.gelu(_linear(own, "intermediate.dense", y), approximate=False)
        z = _linear(own, "output.dense", inner)
        return _normed(own, "output.LayerNorm", y + z, eps), None

    return jax.lax.scan(layer, x, weights["layers"])[0]


def pooled(hidden: jax.Array, mask: jax.Array, how: str) -> jax.Array:
    """Return one vector a text, [n, d]: of its first token ("cls"), or the mean of its tokens."""
    if how == "cls":
        return hidden[:, 0]
    weight = mask.astype(hidden.dtype)[..., None]
    return (hidden * weight).sum(1) / weight.sum(1)


def _attention(
    own: Mapping[str, jax.Array], x: jax.Array, mask: jax.Array, heads: int
) -> jax.Array:
    n, length, d = x.shape
    q, k, v = (
        _linear(own, f"attention.self.{name}", x).reshape(n, length, heads, d // heads)
        for name in ("query", "key", "value")
    )
    scores = jnp.einsum("nqhd,nkhd->nhqk", q, k) / math.sqrt(d // heads)
    scores = jnp.where(mask[:, None, None, :], scores, -jnp.inf)
    found = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores, axis=-1), v)
    return found.reshape(n, length, d)


def _linear(own: Mapping[str, jax.Array], name: str, x: jax.Array) -> jax.Array:
    return x @ own[f"{name}.weight"].T + own[f"{name}.bias"][None, None]


def _normed(own: Mapping[str, jax.Array], name: str, x: jax.Array, eps: float) -> jax.Array:
    centred = x - x.mean(-1, keepdims=True)
    y = centred * jax.lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps)
    return y * own[f"{name}.weight"][None, None] + own[f"{name}.bias"][None, None]
