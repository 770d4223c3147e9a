"""PyTorch's side of the U-Net: the same net, its training step and DDIM with guidance, eager.

Weights come from jdd's tree; layers, order and numbers are those of ``jdd/nets/unet.py``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

Tree = Any
EPS, LEAST = 1e-5, 16


def weights(params: Tree, dtype: torch.dtype = torch.float32, path: str = "") -> dict[str, Any]:
    """Return jdd's weights by path, kernels of convolutions as [o, c, h, w], of lines as [o, c]."""
    found: dict[str, Any] = {}
    for name, value in params.items():
        own = f"{path}/{name}" if path else name
        if isinstance(value, Mapping):
            found |= weights(value, dtype, own)
            continue
        array = np.asarray(value)
        if name == "kernel" and array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
        elif name == "kernel" and path != "classes":
            array = array.T
        value = torch.tensor(array.copy(), dtype=dtype)
        if value.ndim == 4:
            value = value.contiguous(memory_format=torch.channels_last)
        found[own] = value.requires_grad_()
    return found


def _norm(w: Mapping[str, Any], name: str, x: torch.Tensor) -> torch.Tensor:
    groups = _groups(x)
    return F.group_norm(x, groups, w[f"{name}/scale"], w[f"{name}/bias"], EPS)


def _groups(x: torch.Tensor) -> int:
    c, places = x.shape[1], x.shape[2] * x.shape[3]
    return next((g for g in (8, 4, 2) if c % g == 0 and places * c // g >= LEAST), 1)


def _conv(w: Mapping[str, Any], name: str, x: torch.Tensor) -> torch.Tensor:
    kernel = w[f"{name}/kernel"]
    return F.conv2d(x, kernel, w[f"{name}/bias"], padding=kernel.shape[-1] // 2)


def _line(w: Mapping[str, Any], name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w[f"{name}/kernel"], w[f"{name}/bias"])


def _block(w: Mapping[str, Any], name: str, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
    y = _conv(w, f"{name}/conv1", F.silu(_norm(w, f"{name}/norm1", x)))
    scale, shift = _line(w, f"{name}/time", time)[:, :, None, None].chunk(2, 1)
    y = F.silu(F.group_norm(y, _groups(y), eps=EPS) * (1 + scale) + shift)
    y = _conv(w, f"{name}/conv2_zero", y)
    return y + (_conv(w, f"{name}/shortcut", x) if f"{name}/shortcut/kernel" in w else x)


def _attention(w: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor:
    n, c, h, wide = x.shape
    y = _norm(w, "attention/norm", x).reshape(n, c, h * wide).transpose(1, 2)
    query, key, value = _line(w, "attention/qkv", y).chunk(3, -1)
    mixed = F.scaled_dot_product_attention(query, key, value)
    out = _line(w, "attention/out_zero", mixed)
    return x + out.transpose(1, 2).reshape(n, c, h, wide)


def apply(
    w: Mapping[str, Any],
    z: torch.Tensor,
    t: torch.Tensor,
    labels: torch.Tensor,
    width: int,
    levels: int,
    timesteps: int,
) -> torch.Tensor:
    """Return eps of z [n, c, h, w], whose sides the levels divide."""
    half = width // 2
    rates = torch.exp(-math.log(10_000.0) * torch.arange(half, dtype=z.dtype) / half)
    angles = (t.to(z.dtype) * (1000 / timesteps))[:, None] * rates[None]
    waves = torch.cat([angles.cos(), angles.sin()], 1)
    time = _line(w, "time2", F.silu(_line(w, "time1", waves)))
    time = F.silu(time + w["classes/kernel"][labels])
    y, left = _conv(w, "first", z), []
    for level in range(levels):
        y = _block(w, f"down{level}", F.avg_pool2d(y, 2) if level else y, time)
        left.append(y)
    y = _block(w, "middle1", y, time)
    if "attention/qkv/kernel" in w and y.shape[2] * y.shape[3] > 1:
        y = _attention(w, y)
    y = _block(w, "middle2", y, time)
    for level in reversed(range(levels)):
        y = _block(w, f"up{level}", torch.cat([y, left[level]], 1), time)
        y = F.interpolate(y, scale_factor=2, mode="nearest") if level else y
    return _conv(w, "last_zero", F.silu(_norm(w, "norm", y)))


class Trainer:
    """A training step with Adam and averaged weights, as jdd's phase."""

    def __init__(self, w: dict[str, Any], alpha_bar: np.ndarray, lr: float, sizes: dict[str, int]):
        self.w, self.sizes = w, sizes
        self.mean = {name: value.detach().clone() for name, value in w.items()}
        self.optimizer = torch.optim.Adam(list(w.values()), lr=lr, foreach=True)
        self.alpha_bar = torch.tensor(alpha_bar, dtype=torch.float32)

    def step(self, x: torch.Tensor, labels: torch.Tensor, classes: int, drop: float = 0.1) -> None:
        """Take one step on images [n, c, h, w]."""
        t = torch.randint(0, len(self.alpha_bar), labels.shape)
        noise, kept = torch.randn_like(x), self.alpha_bar[t][:, None, None, None]
        z = kept.sqrt() * x + (1 - kept).sqrt() * noise
        shown = torch.where(torch.rand(labels.shape) < drop, classes, labels)
        loss = ((apply(self.w, z, t, shown, **self.sizes) - noise) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.mean.values()), list(self.w.values()), 0.001)


@torch.inference_mode()
def sample(
    w: Mapping[str, Any],
    alpha_bar: np.ndarray,
    times: np.ndarray,
    z: torch.Tensor,
    labels: torch.Tensor,
    classes: int,
    guidance: float,
    sizes: dict[str, int],
) -> torch.Tensor:
    """Return DDIM samples of eta 0 from the noise z."""
    none = torch.full_like(labels, classes)
    for i, t in enumerate(times):
        at = torch.full_like(torch.cat([labels, none]), int(t))
        pair = apply(w, torch.cat([z, z]), at, torch.cat([labels, none]), **sizes)
        of_class, of_none = pair.chunk(2)
        eps = of_none + guidance * (of_class - of_none)
        now = float(alpha_bar[t])
        after = float(alpha_bar[times[i + 1]]) if i + 1 < len(times) else 1.0
        z0 = (z - math.sqrt(1 - now) * eps) / math.sqrt(now)
        z = math.sqrt(after) * z0 + math.sqrt(1 - after) * eps
    return z
