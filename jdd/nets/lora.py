"""Nets of which few parameters are trained: low-rank adapters, or the last layers alone.

    W = W_0 + (alpha / rank) A B,  A [m, r], B [r, o], B = 0 at the start

for the kernels W_0 [..., o] of chosen layers, seen as matrices of m = prod(...) rows; the paper
writes B A for the transposed matrix. Adapters and last layers are the net's "params"; all that is
fixed lies in the collection "frozen" of its variables, so that trajectories, distances and rates
are of the adapters alone.

Source: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022, section 4.1; A is
drawn from N(0, 1 / m). The distilled vision-language pairs of Wu et al. (TMLR 2024) match it for
transformers, without stated rank or targets.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp

from jdd.errors import BadInput
from jdd.nets.base import Net, Output, Taps, Variables

Path = tuple[str, ...]
_KEY = 1203  # folded into the key of the net, whose own draws stay the same


@functools.lru_cache(maxsize=16)  # one object a kind: its programs are compiled once
def adapted(net: Net, rank: int, alpha: float, targets: tuple[str, ...] = ()) -> Net:
    """Return the net that trains low-rank adapters of ``net``, and its last layers whole.

    ``params`` of its variables hold ``lora_a`` [m, r] and ``lora_b`` [r, o] in the place of each
    chosen kernel, and the layers trained whole: those named ``head`` and, of two towers, the whole
    text tower. ``frozen`` holds all other parameters. Its outputs at the start are those of
    ``net`` with the same key.

    Args:
      net: the net, or two towers.
      rank: r; of a smaller matrix at most its smaller side.
      alpha: the scale of the adapters times ``rank``.
      targets: last names of the layers whose kernels are adapted, such as ``attn/qkv``; (): the
        attention's ``qkv`` and ``proj`` if the net has any, else every kernel of 2 or 4 axes.

    Raises:
      BadInput: a rank below 1, an alpha that is not above 0, a target without a kernel.
    """
    if rank < 1 or not alpha > 0:
        raise BadInput(
            "lora", f"rank {rank}, alpha {alpha:g}", "a rank of 1 or more, alpha above 0"
        )
    shapes = _flat(jax.eval_shape(net.init, jax.random.key(0))["params"])
    chosen = _chosen(shapes, targets, net.name)
    return _few(net, chosen, rank, alpha)


@functools.lru_cache(maxsize=16)
def headed(net: Net) -> Net:
    """Return the net that trains the last layers of ``net`` alone, without adapters.

    ``params`` and ``frozen`` of its variables are those of ``adapted``; its outputs at the start
    are those of ``net`` with the same key.

    Args:
      net: the net, or two towers: then the whole text tower is trained too.
    """
    return _few(net, (), 0, 1.0)


def _few(net: Net, chosen: tuple[Path, ...], rank: int, alpha: float) -> Net:
    """Return the net that trains adapters of the chosen kernels, and the last layers whole."""

    def init(key: jax.Array) -> Variables:
        start = dict(net.init(key))
        flat = _flat(start.pop("params"))
        params = _drawn(jax.random.fold_in(key, _KEY), {path: flat[path] for path in chosen}, rank)
        whole = [path for path in flat if _whole(path)]
        params |= {path: flat[path] for path in whole}
        frozen = {path: leaf for path, leaf in flat.items() if path not in whole}
        return {**start, "params": _nested(params), "frozen": _nested(frozen)}

    def apply(variables: Variables, x: Any, train: bool = False, taps: Taps = False) -> Output:
        return net.apply(merged(variables, rank, alpha), x, train=train, taps=taps)

    return Net(net.name, init, apply, net.shape)


def merged(variables: Variables, rank: int, alpha: float) -> Variables:
    """Return variables of the plain net, with W = W_0 + (alpha / rank) A B.

    Args:
      variables: of a net that ``adapted`` made, or ``headed`` (rank 0).
      rank, alpha: as given to ``adapted``.
    """
    params, found = _flat(variables["params"]), _flat(variables["frozen"])
    for path, leaf in params.items():
        if path[-1] == "lora_a":
            kernel = (*path[:-1], "kernel")
            change = leaf @ params[(*path[:-1], "lora_b")]
            found[kernel] = found[kernel] + (alpha / rank) * change.reshape(found[kernel].shape)
        elif path[-1] != "lora_b":
            found[path] = leaf
    others = {kind: tree for kind, tree in variables.items() if kind not in ("params", "frozen")}
    return {**others, "params": _nested(found)}


def _whole(path: Path) -> bool:
    """True if the parameter is trained itself: of a last layer, or of a text tower."""
    return "head" in path or path[0] == "text"


def _chosen(shapes: dict[Path, Any], targets: tuple[str, ...], name: str) -> tuple[Path, ...]:
    kernels = [
        path
        for path, leaf in shapes.items()
        if path[-1] == "kernel" and len(leaf.shape) in (2, 4) and not _whole(path)
    ]
    attention = [p for p in kernels if p[-3:-1] in (("attn", "qkv"), ("attn", "proj"))]
    if not targets:
        return tuple(attention or kernels)
    layers = {"/".join(path[:-1]): path for path in kernels}
    found: dict[Path, None] = {}
    for target in targets:
        own = [path for layer, path in layers.items() if f"/{layer}".endswith(f"/{target}")]
        if not own:
            listed = ", ".join(dict.fromkeys("/".join(path[-3:-1]) for path in kernels))
            raise BadInput("lora.targets", f"{target!r} is no layer of {name}", f"such as {listed}")
        found |= dict.fromkeys(own)
    return tuple(found)


def _drawn(key: jax.Array, kernels: dict[Path, jax.Array], rank: int) -> dict[Path, jax.Array]:
    """Draw A of every kernel in one draw; B is 0."""
    sides = {p: (math.prod(k.shape[:-1]), k.shape[-1]) for p, k in kernels.items()}
    ranks = {path: min(rank, *both) for path, both in sides.items()}
    normal = jax.random.normal(key, (sum(sides[p][0] * ranks[p] for p in sides),), jnp.float32)
    found, used = {}, 0
    for path, (rows, outputs) in sides.items():
        r = ranks[path]
        own = normal[used : used + rows * r].reshape(rows, r)
        found[(*path[:-1], "lora_a")] = own / math.sqrt(rows)
        found[(*path[:-1], "lora_b")] = jnp.zeros((r, outputs), jnp.float32)
        used += rows * r
    return found


def _flat(tree: Variables, path: Path = ()) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for name, value in tree.items():
        own = (*path, name)
        found |= _flat(value, own) if isinstance(value, dict) else {own: value}
    return found


def _nested(flat: dict[Path, Any]) -> Variables:
    tree: Variables = {}
    for path, leaf in flat.items():
        place = tree
        for name in path[:-1]:
            place = place.setdefault(name, {})
        place[path[-1]] = leaf
    return tree
