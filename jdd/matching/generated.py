"""Distances between generated images and real ones of the same classes, in one net.

Of DiM: image i is generated for the class of real image i. In train mode batch norm has the
statistics of the real batch and of the generated one, each by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jdd.nets import Net

Tree = Any


def logit(net: Net, variables: Tree, real: Tree, fake: jax.Array) -> jax.Array:
    """Return mean_ic (log p_c(x_i) - log p_c(G_i))^2 over images i and classes c (scalar).

    Args:
      real: ``images`` x [n, h, w, c] and their ``labels``, int [n].
      fake: G, generated for these labels, [n, h, w, c].

    Source: DiM (Wang et al., 2023), section 3.3.
    """
    ours = (
        jax.nn.log_softmax(net.apply(variables, images, train=True).logits)
        for images in (real["images"], fake)
    )
    first, second = ours
    return jnp.mean(jnp.square(first - second))


def gradient(net: Net, variables: Tree, real: Tree, fake: jax.Array) -> jax.Array:
    """Return sum_l |g_l(x, y) - g_l(G, y)|_1, g_l the gradient of the mean cross entropy (scalar).

    l runs over the kernels, but for the classifier's: biases and scales do not count either.
    Arguments as of ``logit``.
    """
    labels = real["labels"]

    def loss(params: Tree, images: jax.Array) -> jax.Array:
        out = net.apply({**variables, "params": params}, images, train=True).logits
        chosen = jnp.take_along_axis(jax.nn.log_softmax(out), labels[:, None], axis=1)
        return -jnp.mean(chosen)

    own = [_kernels(jax.grad(loss)(variables["params"], x)) for x in (real["images"], fake)]
    pairs = zip(*own, strict=True)
    return sum((jnp.sum(jnp.abs(a - b)) for a, b in pairs), jnp.zeros((), fake.dtype))


def feature(net: Net, variables: Tree, real: Tree, fake: jax.Array) -> jax.Array:
    """Return sum_b |mean_i f_b(x_i) - mean_i f_b(G_i)|_1 over the blocks' outputs (scalar).

    jdd's definition: the authors' code names this loss, and fails before it computes it. Arguments
    as of ``logit``.
    """
    taken = (
        net.apply(variables, images, train=True, taps=True).taps
        for images in (real["images"], fake)
    )
    first, second = (
        [taps[name].mean(0) for name in sorted(taps) if name.startswith("block")] for taps in taken
    )
    pairs = zip(first, second, strict=True)
    return sum((jnp.sum(jnp.abs(a - b)) for a, b in pairs), jnp.zeros((), fake.dtype))


def _kernels(tree: Tree, name: str = "") -> list[jax.Array]:
    """Return the kernels of a tree of layers, but for the classifier's, by name."""
    if name == "head":
        return []
    found = [tree["kernel"]] if "kernel" in tree else []
    children = sorted((n, t) for n, t in tree.items() if isinstance(t, dict))
    return found + [leaf for n, child in children for leaf in _kernels(child, n)]


LOSSES: dict[str, Callable[[Net, Tree, Tree, jax.Array], jax.Array]] = {
    "logit": logit,
    "gradient": gradient,
    "feature": feature,
}
