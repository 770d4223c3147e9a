"""Mean and variance of the inputs of a net's batch norms, of all images or by group.

Every batch norm normalises by the statistics of the batch, as in training: what a layer is given
does not depend on running statistics. The statistics of many images are merged from those of their
batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd.nets.base import Net, Variables, wide

# By batch norm: "mean" and "var", each [groups, channels].
Layers = dict[str, dict[str, Any]]


class Moments(NamedTuple):
    """Statistics of groups of images: ``count`` [groups], and of each layer's input ``layers``."""

    count: Any
    layers: Layers


def of_batch(
    net: Net, names: Sequence[str], variables: Variables, x: jax.Array, groups: jax.Array
) -> Moments:
    """Return the mean and biased variance of each channel over a group's images and pixels.

    Differentiable in ``x`` and ``variables``.

    Args:
      net: the net.
      names: its batch norms, ``order(net, ["batch"])``.
      variables: its variables; running statistics are not read.
      x: one batch ``[n, h, w, c]``.
      groups: ``[n, g]``, 1 where an image belongs to a group, else 0. The moments of an empty group
        have no meaning; its count is 0.
    """
    taps = net.apply(variables, x, train=True, taps=True).taps
    count = jnp.sum(groups, 0)
    share = groups / wide(jnp.maximum(count, 1.0), groups)
    layers: Layers = {}
    for name in names:
        mean, var = _moments(taps[name], share)
        layers[name] = {"mean": mean, "var": var}
    return Moments(count, layers)


def _moments(x: jax.Array, share: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and variance ``[g, c]`` of ``x`` [n, h, w, c], images weighted by a column."""
    own = x.mean((1, 2), keepdims=True)
    within = jnp.square(x - own).mean((1, 2))
    own = own[:, 0, 0]
    # Any shift leaves the variance as it is; this one leaves no large numbers to subtract.
    shift = jax.lax.stop_gradient(own.mean(0, keepdims=True))
    mean = share.T @ (own - shift)
    var = share.T @ (within + jnp.square(own - shift)) - jnp.square(mean)
    return mean + shift, var


def merged(parts: Sequence[Moments]) -> Moments:
    """Return the statistics of all images of several batches, in float64.

        n = sum_b n_b,  m = sum_b n_b m_b / n,  v = sum_b n_b (v_b + (m_b - m)^2) / n

    Args:
      parts: one for each batch; leading axes, such as one of nets, are those of every array.
    """
    counts = np.stack([np.asarray(part.count, np.float64) for part in parts])
    total = counts.sum(0)
    weights = (counts / np.maximum(total, 1.0))[..., None]
    layers: Layers = {}
    for name in parts[0].layers:
        means, variances = (
            np.stack([np.asarray(part.layers[name][key], np.float64) for part in parts])
            for key in ("mean", "var")
        )
        mean = np.sum(weights * means, 0)
        var = np.sum(weights * (variances + np.square(means - mean)), 0)
        layers[name] = {"mean": mean, "var": var}
    return Moments(total, layers)


def over_batches(read: Callable[[np.ndarray], Moments], rows: np.ndarray, batch: int) -> Layers:
    """Return the statistics of the images ``rows``, read in batches of nearly equal sizes.

    Args:
      read: ``rows of one batch -> Moments``.
      rows: in the order in which they are cut.
      batch: images of a batch, at most.
    """
    parts = np.array_split(rows, -(-len(rows) // batch))
    return merged([jax.device_get(read(some)) for some in parts]).layers


def with_statistics(variables: Variables, layers: Layers) -> Variables:
    """Return variables whose running statistics are ``layers``, arrays without axis of groups."""
    stats = jax.tree.map(lambda x: x, variables["batch_stats"])
    for name, found in layers.items():
        *path, last = name.split("/")
        at = stats
        for part in path:
            at = at[part]
        at[last] = {key: jnp.asarray(found[key], at[last][key].dtype) for key in at[last]}
    return {**variables, "batch_stats": stats}
