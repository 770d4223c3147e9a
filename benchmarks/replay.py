"""The same numbers on both sides: jdd's weights, images and augmentation draws as PyTorch's."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

from benchmarks import pair_step, peers, recover_step
from benchmarks.matching_step import SEED, Step
from benchmarks.peers import dsa as peer_dsa
from benchmarks.peers import frozen, recover, vl
from benchmarks.peers.gradient_matching import Classes
from benchmarks.peers.mtt import Segment
from jdd import rng
from jdd.augment import dsa, views
from jdd.methods import recovery

Tree = Any


def tensor(array: Any) -> Tensor:
    """Return an array as a tensor on PyTorch's device."""
    return torch.tensor(np.asarray(array), device=peers.device())


def images(array: Any) -> Tensor:
    """[n, h, w, c] -> [n, c, h, w] in channels_last."""
    moved = tensor(array).permute(0, 3, 1, 2)
    return moved.contiguous(memory_format=torch.channels_last)


def weights(params: Tree) -> list[Tensor]:
    """Return a ConvNet's parameters in the peer's order and layouts."""
    found = []
    blocks = [name for name in sorted(params) if name.startswith("conv")]
    for name in blocks:
        norm = params[name.replace("conv", "norm")]
        found += [_kernel(params[name]["kernel"])]
        found += [tensor(x) for x in (params[name]["bias"], norm["scale"], norm["bias"])]
    head = _head(params["head"]["kernel"], found[-1].shape[0])
    return [*found, head, tensor(params["head"]["bias"])]


def segment(variables: Tree, batch: Tree, labels: np.ndarray) -> Segment:
    """Return what one outer step reads; ``batch`` holds one item on axis 0."""
    ends = [jax.tree.map(lambda x: x[0], batch[name]["params"]) for name in ("start", "target")]
    return Segment(
        weights(ends[0]),
        weights(ends[1]),
        images(variables["images"]),
        tensor(labels).long(),
        tensor(variables["lr"]),
    )


def pairs(step: pair_step.Step) -> vl.Segment:
    """Return what one outer step of VL or LoRS reads."""
    ends = [
        jax.tree.map(lambda x: x[0], step.batch[name]["params"]) for name in ("start", "target")
    ]
    start, target = ({path: _weight(x) for path, x in _paths(end).items()} for end in ends)
    config = step.config
    alpha = float(getattr(config, "sim_alpha", 1.0))
    own = learned(step.variables)
    return vl.Segment(start, target, own, config.loss, alpha, config.towers.tau)


def learned(variables: Tree) -> dict[str, Tensor]:
    """Return what VL and LoRS learn, or its gradient, by path."""
    found = {path: tensor(x) for path, x in _paths(variables).items()}
    return found | {"images": images(variables["images"])}


def _paths(tree: Tree) -> dict[str, Any]:
    """Return the leaves of a dict of dicts by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _weight(array: Any) -> Tensor:
    """Return a kernel or a vector in PyTorch's order of axes."""
    if array.ndim == 4:
        return _kernel(array)
    return tensor(array).T.contiguous() if array.ndim == 2 else tensor(array)


def draws(key: jax.Array, steps: int, strategy: str, images: jax.Array) -> list[peer_dsa.Draw]:
    """Return what jdd's MTT objective draws from ``key`` for images [n, h, w, c]."""
    keys = jax.random.split(key, steps)
    return [drawn(k, strategy, images.shape, images.dtype.type) for k in keys]


def classes(step: Step) -> tuple[Classes, list[peer_dsa.Draw]]:
    """Return what one step of class by class matching reads, and each class's Siamese draw.

    In plain NCHW: for images of one channel PyTorch is faster so.
    """
    state, batch = step.carry.state, step.batch
    shape, dtype = state.variables["images"].shape[1:], state.variables["images"].dtype.type
    real, draws = {}, {}
    for place in np.argwhere(np.asarray(batch["weight"]) > 0):
        i, j = (int(axis) for axis in place)
        c = int(batch["classes"][i, j])
        used = np.asarray(batch["real_weight"][i, j]) > 0
        real[c] = images(np.asarray(batch["real"]["images"][i, j])[used]).contiguous()
        draws[c] = ("none", ())
        if step.strategy:
            key = jax.random.key(batch["seed"][i, j])
            draws[c] = drawn(key, step.strategy, (1, *shape), dtype)
    net = [w.contiguous() for w in weights(state.aux["net"]["params"])]
    own = images(state.variables["images"]).contiguous()
    return Classes(net, own, [real[c] for c in sorted(real)]), [draws[c] for c in sorted(draws)]


def double(classes: Classes, draws: list[peer_dsa.Draw]) -> tuple[Classes, list[peer_dsa.Draw]]:
    """Return what ``classes`` returns in float64."""

    def cast(x: Tensor) -> Tensor:
        return x.double() if x.is_floating_point() else x

    found = Classes(*([cast(x) for x in part] for part in classes))
    wide = [(name, tuple(cast(p) for p in parameters)) for name, parameters in draws]
    return found._replace(images=cast(classes.images)), wide


def drawn(key: jax.Array, strategy: str, shape: tuple[int, ...], dtype: Any) -> peer_dsa.Draw:
    """Return what ``jdd.augment.dsa.dsa`` draws from ``key`` for images of ``dtype``."""
    op_key, key = jax.random.split(key)
    name = dsa.names(strategy)[int(dsa.draw_op(op_key, strategy))]
    u = np.asarray(jax.random.uniform(key, (3, shape[0]), np.float32))
    return name, tuple(tensor(p) for p in parameters(name, u, shape, dtype))


def parameters(
    name: str, u: np.ndarray, shape: tuple[int, ...], dtype: Any
) -> tuple[np.ndarray, ...]:
    """Turn jdd's three uniform draws an image, [3, n], into an operation's parameters."""
    real = u.astype(dtype)
    if name == "color":
        return (real[0] - 0.5) * dsa.BRIGHTNESS, real[1] * dsa.SATURATION, real[2] + dsa.CONTRAST
    if name == "crop":
        most = [peer_dsa.reach(size) for size in shape[1:3]]
        return tuple(_whole(d, 2 * m + 1) - m for d, m in zip(u, most, strict=False))
    if name == "cutout":
        counts = [size + 1 - peer_dsa.hole(size) % 2 for size in shape[1:3]]
        return tuple(_whole(d, count) for d, count in zip(u, counts, strict=False))
    if name == "flip":
        return (u[0] < 0.5,)
    if name == "scale":
        low = 1 / dsa.SCALE
        return tuple(real[:2] * dtype(dsa.SCALE - low) + dtype(low))
    return ((real[0] - dtype(0.5)) * dtype(2 * dsa.ROTATE) * dtype(np.pi / 180),)


def _whole(draw: np.ndarray, count: int) -> np.ndarray:
    return np.floor(draw * np.float32(count)).astype(np.int64)


def recovered(step: Step) -> tuple[frozen.Net, list[recover.Batch], recover.Recipe]:
    """Return what one step of SRe2L reads, its batches one by one with the views jdd draws."""
    config, batch, every = step.config, step.batch, step.carry.state.variables["images"]
    shape, size = every.shape[1:], len(every) // len(batch["place"])
    key = rng.key(SEED, "objective", step.carry.step)
    batches = []
    for place, number in enumerate(np.asarray(batch["keys"])):
        own = jax.random.fold_in(key, number)
        view = views.draw(own, size, shape, recovery.spec(config, shape))
        box, flip, shift = (np.asarray(part)[0].tolist() for part in view[:3])
        drawn = recover.View(tuple(box), flip, tuple(shift))
        part = images(every[place * size : (place + 1) * size])
        batches.append(recover.Batch(part, tensor(batch["labels"][place]).long(), drawn))
    ends = recovery.bounds(recover_step.transform(config.data.name), shape)
    low, high = (tensor(end).to(batches[0].images.dtype) for end in ends)
    recipe = recover.Recipe(
        float(config.lr_img),
        int(config.steps),
        float(config.r_bn),
        float(config.first_bn),
        low,
        high,
        int(config.roll),
        float(config.flip),
        str(config.crop),
        float(config.min_scale),
    )
    return frozen_net(config.net.name, step.method.constants["teacher"]), batches, recipe


def frozen_net(name: str, variables: Tree) -> frozen.Net:
    """Return a ConvNetBN or ResNet18BN with its batch statistics."""
    net = frozen.Net(frozen.NETS[name])

    def read(params: Tree, stats: Tree, path: str) -> None:
        for key, layer in params.items():
            if "scale" in layer:
                parts = layer["scale"], layer["bias"], stats[key]["mean"], stats[key]["var"]
                net.norms[path + key] = frozen.norm(*map(tensor, parts))
                continue
            if "kernel" not in layer:
                read(layer, stats[key], f"{path}{key}/")
                continue
            if layer["kernel"].ndim == 4:
                net.kernels[path + key] = _kernel(layer["kernel"])
            if "bias" in layer:
                net.biases[path + key] = tensor(layer["bias"])

    params = variables["params"]
    read(params, variables["batch_stats"], "")
    channels = len(next(reversed(net.norms.values())).scale)
    net.kernels["head"] = _head(params["head"]["kernel"], channels)
    return net


def _kernel(array: Any) -> Tensor:
    return tensor(array).permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _head(array: Any, channels: int) -> Tensor:
    """[h w c, classes] with h = w -> [classes, c h w]."""
    side = round((array.shape[0] / channels) ** 0.5)
    by_channel = tensor(array).reshape(side, side, channels, -1).permute(3, 2, 0, 1)
    return by_channel.flatten(1).contiguous()


def apart(found: Any, expected: Any) -> float:
    """Return ||found - expected|| / ||expected|| of two arrays, or lists of arrays."""
    a, b = (_flat(x) for x in (found, expected))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def median_apart(found: Tensor, expected: Tensor) -> float:
    """Return the median over images, on axis 0, of ``apart``."""
    return float(np.median([apart(a, b) for a, b in zip(found, expected, strict=True)]))


def _flat(values: Any) -> np.ndarray:
    parts = values if isinstance(values, list) else [values]
    arrays = [x.detach().cpu() if isinstance(x, Tensor) else x for x in parts]
    return np.concatenate([np.asarray(x, np.float64).ravel() for x in arrays])
