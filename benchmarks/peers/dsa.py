"""Differentiable siamese augmentation in PyTorch: one drawn operation a batch, parameters an image.

A draw is ``(name, parameters)``, each parameter [n]: it can be replayed, or come from jdd.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Draw = tuple[str, tuple[Tensor, ...]]


def draw(strategy: str, images: Tensor) -> Draw:
    """Draw an operation of ``strategy`` ('' or 'none': no operation) and its parameters."""
    if strategy in ("", "none"):
        return "none", ()
    name = random.choice(strategy.split("_"))
    n, _, h, w = images.shape

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, device=images.device) * (high - low) + low

    def whole(low: int, high: int) -> Tensor:
        return torch.randint(low, high + 1, (n,), device=images.device)

    if name == "color":
        return name, (uniform(-0.5, 0.5), uniform(0, 2), uniform(0.5, 1.5))
    if name == "crop":
        return name, tuple(whole(-reach(size), reach(size)) for size in (h, w))
    if name == "cutout":
        return name, tuple(whole(0, size - hole(size) % 2) for size in (h, w))
    if name == "flip":
        return name, (torch.rand(n, device=images.device) < 0.5,)
    if name == "scale":
        return name, (uniform(1 / 1.2, 1.2), uniform(1 / 1.2, 1.2))
    return name, (uniform(-15, 15) * (math.pi / 180),)


def apply(drawn: Draw, images: Tensor) -> Tensor:
    """Apply a draw to images [n, c, h, w]; zero outside, nothing clamped."""
    name, parameters = drawn
    return images if name == "none" else _OPS[name](images, *parameters)


def reach(size: int) -> int:
    """Return how far a crop shifts, in pixels."""
    return int(size * 0.125 + 0.5)


def hole(size: int) -> int:
    """Return the side of a cutout's hole."""
    return int(size * 0.5 + 0.5)


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    x = x + _wide(brightness)
    mean = x.mean(1, keepdim=True)
    x = (x - mean) * _wide(saturation) + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * _wide(contrast) + mean


def _crop(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    n, _, h, w = x.shape
    pad_h, pad_w = reach(h), reach(w)
    padded = F.pad(x, (pad_w, pad_w, pad_h, pad_h)).permute(0, 2, 3, 1)
    i = torch.arange(n, device=x.device)[:, None, None]
    r = torch.arange(h, device=x.device)[:, None] + (rows + pad_h)[:, None, None]
    c = torch.arange(w, device=x.device) + (cols + pad_w)[:, None, None]
    return padded[i, r, c].permute(0, 3, 1, 2)


def _cutout(x: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    def covered(size: int, centre: Tensor) -> Tensor:
        place = torch.arange(size, device=x.device)
        first = (centre - hole(size) // 2)[:, None]
        return (place >= first) & (place < first + hole(size))

    mask = covered(x.shape[2], rows)[:, :, None] & covered(x.shape[3], cols)[:, None, :]
    return x * ~mask[:, None]


def _flip(x: Tensor, flipped: Tensor) -> Tensor:
    return torch.where(_wide(flipped), x.flip(3), x)


def _affine(x: Tensor, entries: list[Tensor]) -> Tensor:
    theta = torch.stack(entries, 1).reshape(-1, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=True)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)


def _scale(x: Tensor, sx: Tensor, sy: Tensor) -> Tensor:
    zero = torch.zeros_like(sx)
    return _affine(x, [sx, zero, zero, zero, sy, zero])


def _rotate(x: Tensor, angle: Tensor) -> Tensor:
    zero, cos, sin = torch.zeros_like(angle), torch.cos(angle), torch.sin(angle)
    return _affine(x, [cos, -sin, zero, sin, cos, zero])


_OPS: dict[str, Callable[..., Tensor]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}
