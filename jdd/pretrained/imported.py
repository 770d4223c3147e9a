"""Weights of others from a safetensors file, by timm's tensor names, checked tensor by tensor.

    net = nets.make("NFResNet_IN", (224, 224, 3), 64)
    found = imported.read(Path("nf_resnet50.safetensors"), net)
    net = imported.fixed(net, found.variables)

Kernels are turned from PyTorch's layout, [o, i, h, w] or [o, i], to [h, w, i, o] or [i, o]. A last
layer of another size is left out; ``fixed`` draws it. timm's NF-ResNets multiply the stem's kernel
by gamma as well; here its gain takes that factor, so that both nets are the same function.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jdd.errors import BadInput
from jdd.nets import Net, Variables
from jdd.nets.nfresnet import GAMMA
from jdd.storage import tensors

Tree = tuple[str, ...]
Shape = tuple[int, ...]
_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm: no part of the function
_LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
_SHOWN = 3  # problems in one message


class Imported(NamedTuple):
    """``variables`` of a net, without a last layer that did not fit; ``notes`` for the user."""

    variables: Variables
    notes: tuple[str, ...]


def read(path: Path, net: Net, act: str = "relu") -> Imported:
    """Return the variables of ``net`` from a file of timm's.

    Args:
      path: a .safetensors file.
      net: one of ``NAMES`` with the width and depth of the file; its classes may differ.
      act: the activation of an NF-ResNet.

    Raises:
      BadInput: a net whose names are not known, a damaged file, tensors that are missing, belong to
        no layer, or are of another shape or type.
    """
    expected, head = _expected(net)
    there = {n: v for n, v in tensors.listed(path).items() if not n.endswith(_COUNTER)}
    apart = [n for n in head if n not in there or there[n][1] != expected[n][1]]
    left = set(head) if apart else set()
    _validate(path, net, {n: v[1] for n, v in expected.items() if n not in left}, there, left)
    arrays = tensors.read(path, [name for name in expected if name not in left])
    variables: Variables = {}
    for name, value in arrays.items():
        where = expected[name][0]
        value = _turned(where[-1], value)
        if where[1:] == ("conv0", "gain"):
            value = value * np.float32(GAMMA[act])
        _put(variables, where, value)
    notes = []
    if apart:
        found = f"of {list(there[apart[0]][1])}" if apart[0] in there else "absent"
        wanted = list(expected[apart[0]][1])
        notes.append(
            f"{path.name}: the last layer ({apart[0]}) is {found}, not {wanted}: drawn anew"
        )
    return Imported(variables, tuple(notes))


def fixed(net: Net, variables: Variables, tower: str = "") -> Net:
    """Return ``net`` whose ``init`` gives ``variables``; what they lack is drawn from the key.

    Args:
      net: the net, or two towers.
      variables: as ``read`` returns them.
      tower: "image" if ``net`` is two towers and ``variables`` are those of its image net.

    Raises:
      ValueError: ``variables`` has an entry that is none of the net's, or of another shape.
    """
    own = {kind: {tower: tree} if tower else tree for kind, tree in variables.items()}
    own = jax.tree.map(jnp.asarray, own)

    def init(key: jax.Array) -> Variables:
        return _over(net.init(key), own, "")

    return net._replace(init=init)


def _over(start: Variables, own: Variables, at: str) -> Variables:
    found = dict(start)
    for name, value in own.items():
        if name not in start:
            raise ValueError(f"{at}/{name} is no variable of the net")
        if isinstance(value, dict):
            found[name] = _over(start[name], value, f"{at}/{name}")
            continue
        if start[name].shape != value.shape:
            raise ValueError(f"{at}/{name}: {value.shape}, not {start[name].shape}")
        found[name] = value
    return found


def _expected(net: Net) -> tuple[dict[str, tuple[Tree, Shape]], list[str]]:
    """Return place and PyTorch's shape of each tensor by timm's name, and the head's names."""
    if net.name not in _NAMES:
        allowed = f"one of {', '.join(NAMES)}"
        raise BadInput("config.net.name", f"{net.name}, whose weights cannot be read", allowed)
    shapes = jax.eval_shape(net.init, jax.random.key(0))
    found, head, leaves = {}, [], jax.tree_util.tree_leaves_with_path(shapes)
    paths = [tuple(part.key for part in path) for path, _ in leaves]
    for where, (_, leaf) in zip(paths, leaves, strict=True):
        layer = _NAMES[net.name](where[1:-1], ("params", where[1], "conv3", "kernel") in paths)
        name = ".".join((*layer, _LEAVES.get(where[-1], where[-1])))
        found[name] = (where, _torch_shape(where[-1], leaf.shape))
        if where[1] == "head":
            head.append(name)
    return found, head


def _validate(
    path: Path,
    net: Net,
    expected: dict[str, Shape],
    there: dict[str, tuple[str, Shape]],
    left: set[str],
) -> None:
    wrong = [f"no tensor {n} {list(s)}" for n, s in expected.items() if n not in there]
    for name, (dtype, shape) in there.items():
        if name in left:
            continue
        if name not in expected:
            wrong.append(f"{name} {list(shape)} belongs to no layer")
        elif shape != expected[name]:
            wrong.append(f"{name} is {list(shape)}, not {list(expected[name])}")
        elif dtype not in tensors.FLOATS:
            wrong.append(f"{name} is of {dtype}, not one of {', '.join(tensors.FLOATS)}")
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        allowed = f"timm's tensors of {net.name} with the file's own --config.net.width and depth"
        raise BadInput(str(path), "; ".join(wrong[:_SHOWN]) + more, allowed)


def _nfresnet(layer: Tree, bottleneck: bool) -> Tree:
    del bottleneck
    if layer == ("head",):
        return ("head", "fc")
    if layer == ("conv0",):
        return ("stem", "conv")
    stage, block = layer[0].removeprefix("stage").split("_")
    inside = ("downsample", "conv") if layer[1:] == ("shortcut",) else layer[1:]
    return ("stages", str(int(stage) - 1), str(int(block) - 1), *inside)


def _vit(layer: Tree, bottleneck: bool) -> Tree:
    del bottleneck
    parts = (name.split("_") if name.startswith("blocks_") else [name] for name in layer)
    return tuple(part for few in parts for part in few)


def _resnet(layer: Tree, bottleneck: bool) -> Tree:
    plain = {"head": "fc", "conv0": "conv1", "norm0": "bn1"}
    if layer[0] in plain:
        return (plain[layer[0]],)
    stage, block = layer[0].removeprefix("stage").split("_")
    shortcuts = {"shortcut": "0", "norm4" if bottleneck else "norm3": "1"}
    inside: Tree = (layer[1].replace("norm", "bn"),)
    if layer[1] in shortcuts:
        inside = ("downsample", shortcuts[layer[1]])
    return (f"layer{stage}", str(int(block) - 1), *inside)


_NAMES: dict[str, Callable[[Tree, bool], Tree]] = {
    "NFResNet": _nfresnet,
    "NFResNet_IN": _nfresnet,
    "ViT": _vit,
    **dict.fromkeys(("ResNet18BN", "ResNet18BN_IN", "ResNet50BN", "ResNet50BN_IN"), _resnet),
}
NAMES = tuple(_NAMES)


def _torch_shape(leaf: str, shape: Shape) -> Shape:
    if leaf == "kernel":
        return (shape[-1], shape[-2], *shape[:-2])
    return (*shape, 1, 1, 1) if leaf == "gain" else shape


def _turned(leaf: str, value: np.ndarray) -> np.ndarray:
    if leaf == "kernel":
        return np.ascontiguousarray(value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T)
    return value.reshape(-1) if leaf == "gain" else value


def _put(tree: dict[str, Any], where: Tree, value: np.ndarray) -> None:
    for name in where[:-1]:
        tree = tree.setdefault(name, {})
    tree[where[-1]] = value
