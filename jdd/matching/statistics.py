"""Statistics matching: losses between statistics of a trained net's layer inputs.

A hook is a layer whose input is measured: a batch norm, whose running statistics are the targets,
or a convolution, whose targets are averages over real batches. ``order(net, kinds)`` of
``jdd/nets/order.py`` names a net's hooks in execution order, and ``Output.taps`` holds their
inputs. Several functions take the names of the hooks for their order: the first hook has its own
weight, and jit sorts dicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.matching.gradient import length
from jdd.nets.base import wide

# Of one hook: "mean" and "var" per channel, of a convolution also "patch_mean" and "patch_var".
Statistics = dict[str, jax.Array]
Hooks = dict[str, Statistics]
Keep = dict[str, jax.Array]

REDUCES = ("norm", "mse")


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean and biased variance of each channel, ``[n, h, w, c]`` to ``[c]`` twice.

    Correct for first derivatives only: deviations sum to 0, so the derivative of the variance does
    not depend on the mean's, and a reduction is saved. Second derivatives would be wrong.
    """
    mean = x.mean((0, 1, 2))
    centred = x - jax.lax.stop_gradient(wide(mean, x))
    return mean, (centred * centred).mean((0, 1, 2))


def patch_moments(x: jax.Array, patch: int) -> tuple[jax.Array, jax.Array]:
    """Return the mean and biased variance of each patch position.

    A map is enlarged bilinearly until ``patch`` divides its sides and cut into squares of ``patch``
    pixels; both statistics are over images, channels and the pixels of a square.

    Args:
      x: ``[n, h, w, c]``.
      patch: the side of a square in pixels.

    Returns:
      ``[ceil(h / patch), ceil(w / patch)]``, twice.

    Source: G-VBSM (Shao et al., CVPR 2024), generalised statistics of convolutions.
    """
    n, h, w, c = x.shape
    rows, cols = -(-h // patch), -(-w // patch)
    if (h, w) != (rows * patch, cols * patch):
        grown = (n, rows * patch, cols * patch, c)
        x = jax.image.resize(x, grown, "linear", antialias=False)
    x = x.reshape(n, rows, patch, cols, patch, c)
    mean = x.mean((0, 2, 4, 5), keepdims=True)
    centred = x - mean
    return mean.reshape(rows, cols), (centred * centred).mean((0, 2, 4, 5))


def distance(
    mean: jax.Array, var: jax.Array, target_mean: jax.Array, target_var: jax.Array
) -> jax.Array:
    """Return ||mean - target_mean||_2 + ||var - target_var||_2 (norms, not their squares).

    Args:
      mean, var, target_mean, target_var: ``[c]``.

    Returns:
      Scalar; if a norm is 0, so is its derivative.

    Source: SRe2L (Yin, Xing & Shen, NeurIPS 2023), the recover step.
    """
    return length(mean - target_mean) + length(var - target_var)


def hook_statistics(
    taps: dict[str, jax.Array], convs: Sequence[str], norms: Sequence[str], patch: int = 4
) -> Hooks:
    """Return the statistics of each hook's input.

    Args:
      taps: ``Output.taps``, of ``taps="all"`` if there are ``convs``.
      convs: convolutions, which also have patch statistics.
      norms: batch norms.
      patch: the side of a patch (G-VBSM: 4 up to 64 pixels, 16 at 224).

    Returns:
      name -> {"mean": [c], "var": [c]}, of a convolution also {"patch_mean": [h', w'],
      "patch_var": [h', w']}.
    """
    found: Hooks = {}
    for name in (*convs, *norms):
        mean, var = moments(taps[name])
        found[name] = {"mean": mean, "var": var}
    for name in convs:
        mean, var = patch_moments(taps[name], patch)
        found[name] |= {"patch_mean": mean, "patch_var": var}
    return found


def image_statistics(
    taps: dict[str, jax.Array], convs: Sequence[str], norms: Sequence[str], patch: int = 4
) -> Hooks:
    """Return ``hook_statistics`` of each image by itself: the same names, ``[n, ...]``.

    Variances are over the places of one image (and the channels of its patches).
    """

    def one(own: dict[str, jax.Array]) -> Hooks:
        return hook_statistics({k: x[None] for k, x in own.items()}, convs, norms, patch)

    hooks = {name: taps[name] for name in (*convs, *norms)}
    return jax.vmap(one)(hooks)


def running(batch_stats: dict[str, Any], names: Sequence[str]) -> Hooks:
    """Return the running statistics of the batch norms ``names``, "stage1_1/norm1" by its path."""
    found: Hooks = {}
    for name in names:
        layer = batch_stats
        for part in name.split("/"):
            layer = layer[part]
        found[name] = {"mean": layer["mean"], "var": layer["var"]}
    return found


def statistics_loss(
    found: Hooks,
    targets: Hooks,
    names: Sequence[str],
    first: float = 10.0,
    keep: Keep | None = None,
    reduce: str = "norm",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return sum_l keep_l w_l sum_s ||S_ls - T_ls||_2 over hooks l and their statistics s.

    Args:
      found, targets: S and T, of the same hooks and shapes; T is a constant.
      names: the hooks, in execution order.
      first: w of the first of ``names``, whatever its ``keep``; of the others w is 1.
      keep: 0 or 1 for hooks that may be omitted in a step; 0 removes value and gradient. Hooks not
        in it have 1.
      reduce: "norm", or "mse" for the mean of the squared differences in place of the norm.

    Returns:
      The loss, a scalar, and by hook the scalar that w_l and keep_l multiply.

    Raises:
      BadInput: ``reduce`` is not one of ``REDUCES``.

    Source: G-VBSM (Shao et al., CVPR 2024), generalised statistics matching.
    """
    if reduce not in REDUCES:
        raise BadInput("bn_reduce", f"{reduce!r}", f"one of {', '.join(REDUCES)}")
    by_hook, loss = {}, jnp.zeros(())
    for i, name in enumerate(names):
        pairs = [(value, targets[name][key]) for key, value in sorted(found[name].items())]
        parts = [_size(value - jax.lax.stop_gradient(target), reduce) for value, target in pairs]
        by_hook[name] = sum(parts[1:], parts[0])
        weighted = by_hook[name] if i else first * by_hook[name]
        loss = loss + (keep[name] * weighted if keep and name in keep else weighted)
    return loss, by_hook


def _size(difference: jax.Array, reduce: str) -> jax.Array:
    return jnp.mean(jnp.square(difference)) if reduce == "mse" else length(difference.ravel())


def batch_norm_loss(
    taps: dict[str, jax.Array],
    batch_stats: dict[str, Any],
    names: Sequence[str],
    first: float = 10.0,
    reduce: str = "norm",
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return sum_l w_l (||mean_l - running mean_l||_2 + ||var_l - running var_l||_2).

    l runs over batch norms; mean_l and the biased var_l are those of their inputs.

    Args:
      taps: ``net.apply(variables, x, taps=True).taps``, batch norms reading running statistics.
      batch_stats: the variables' own.
      names: ``order(net, ["batch"])``; without any the loss is 0.
      first, reduce: as in ``statistics_loss``.

    Returns:
      The loss, a scalar, and by batch norm the scalar that w_l multiplies.

    Source: SRe2L (Yin, Xing & Shen, NeurIPS 2023), the recover step; w of the first is its code's.
    """
    found = hook_statistics(taps, (), names)
    return statistics_loss(found, running(batch_stats, names), names, first, reduce=reduce)


class Average(NamedTuple):
    """A moving average of hooks' statistics.

    Attributes:
      value: in the form of ``hook_statistics``; 0 at the start.
      seen: bool by hook, True once it has had statistics.
    """

    value: Hooks
    seen: dict[str, jax.Array]


def start(found: Hooks) -> Average:
    """Return an empty average, for statistics like ``found`` (arrays or shapes)."""
    value = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found)
    return Average(value, {name: jnp.zeros((), bool) for name in found})


def moving(
    average: Average,
    new: Hooks,
    alpha: jax.typing.ArrayLike,
    keep: Keep | None = None,
    zero_start: bool = False,
) -> tuple[Hooks, Average]:
    """Return statistics with the value of their moving average and the gradient of their own.

        A' = alpha A + (1 - alpha) S,    value = S + stop(A' - S)

    The statistics S of a small batch are noisy, their average A' is less so; d value / d S is 1.

    Args:
      average: A, from ``start`` or the last step.
      new: S.
      alpha: the weight of A (G-VBSM: 0.8 up to 64 pixels, 0.4 at 224).
      keep: as in ``statistics_loss``; the average of a hook with 0 does not change.
      zero_start: A starts at 0, as in the authors' code; else a hook's first A' is its first S.

    Source: G-VBSM (Shao et al., CVPR 2024), alpha of generalised statistics matching.
    """
    value: Hooks = {}
    after: Hooks = {}
    seen = {}
    for name, statistics in new.items():
        here = jnp.asarray(True) if keep is None or name not in keep else keep[name] != 0
        known = average.seen[name] | zero_start
        value[name], after[name] = {}, {}
        for key, own in statistics.items():
            old, own_value = jax.lax.stop_gradient((average.value[name][key], own))
            mixed = jnp.where(known, alpha * old + (1 - alpha) * own_value, own_value)
            after[name][key] = jnp.where(here, mixed, old)
            value[name][key] = own + jax.lax.stop_gradient(after[name][key] - own)
        seen[name] = average.seen[name] | here
    return value, Average(after, seen)
