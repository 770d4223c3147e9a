"""Nets with batch norm whose weights and statistics stay as they are: gradients for images alone.

A ``Net`` holds tensors by the name of their layer. What enters a batch norm is looked at on the
way; that, the normalisation and both derivatives are one function of autograd: with PyTorch's own
``var_mean`` the derivative of the variance alone takes longer than the convolution before it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


class Norm(NamedTuple):
    """A batch norm that reads its running ``mean`` and ``var``: y = scale x + offset, [c] each."""

    scale: Tensor
    offset: Tensor
    mean: Tensor
    var: Tensor


@dataclass(frozen=True)
class Net:
    """``kernels`` [o, i, h, w] (the head's [classes, d]), ``biases`` and ``norms`` by layer;
    ``features`` is ``conv_net`` or ``resnet18``.
    """

    features: Callable[[Pass, Tensor], Tensor]
    kernels: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)


def contiguous(net: Net) -> Net:
    """Return a net for images that are laid out channel by channel."""
    return replace(net, kernels={name: k.contiguous() for name, k in net.kernels.items()})


def norm(weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor) -> Norm:
    """Return a batch norm in the form that costs least."""
    scale = weight / torch.sqrt(var + EPS)
    return Norm(scale, bias - mean * scale, mean, var)


class _Watched(torch.autograd.Function):
    """y = scale x + offset, and the mean and biased variance of each channel of x [n, c, h, w]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, offset: Tensor) -> tuple[Tensor, ...]:
        if x.is_cuda:  # one program there, and loops that take longer on a CPU
            var, mean = torch.var_mean(x, (0, 2, 3), correction=0)
        else:
            mean = x.mean((0, 2, 3))
            var = (x - _wide(mean)).square_().mean((0, 2, 3))
        ctx.save_for_backward(x, mean, scale)
        return torch.addcmul(_wide(offset), x, _wide(scale)), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor, dmean: Tensor, dvar: Tensor) -> tuple[Tensor, None, None]:
        x, mean, scale = ctx.saved_tensors
        count = x.numel() // x.shape[1]
        slope = dvar * (2 / count)
        dx = torch.addcmul(_wide(dmean / count - slope * mean), x, _wide(slope))
        return dx.addcmul_(dy, _wide(scale)), None, None


def _wide(vector: Tensor) -> Tensor:
    return vector[:, None, None]


class Pass:
    """One forward pass; ``statistics`` are the batch norms met, with their inputs' mean and var."""

    def __init__(self, net: Net, watch: bool = True):
        self._net, self._watch = net, watch
        self.statistics: list[tuple[Norm, Tensor, Tensor]] = []

    def conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        """Return a convolution that keeps the size where the stride is 1."""
        kernel = self._net.kernels[name]
        return F.conv2d(x, kernel, self._net.biases.get(name), stride, kernel.shape[2] // 2)

    def norm(self, x: Tensor, name: str) -> Tensor:
        """Return a batch norm's output."""
        layer = self._net.norms[name]
        if not self._watch:
            return torch.addcmul(_wide(layer.offset), x, _wide(layer.scale))
        y, mean, var = _Watched.apply(x, layer.scale, layer.offset)
        self.statistics.append((layer, mean, var))
        return y

    def logits(self, x: Tensor) -> Tensor:
        """Return logits of images [n, c, h, w]."""
        features = self._net.features(self, x)
        return F.linear(features, self._net.kernels["head"], self._net.biases["head"])

    def has(self, name: str) -> bool:
        """Tell whether the net has a convolution of this name."""
        return name in self._net.kernels


def conv_net(run: Pass, x: Tensor) -> Tensor:
    """Return the features of ConvNetBN: conv 3x3, batch norm, ReLU, average pool 2x2 a block."""
    i = 1
    while run.has(f"conv{i}"):
        x = F.avg_pool2d(F.relu_(run.norm(run.conv(x, f"conv{i}"), f"norm{i}")), 2)
        i += 1
    return x.flatten(1)


def resnet18(run: Pass, x: Tensor) -> Tensor:
    """Return the features of ResNet18BN for small images: a 3x3 stem, stages at 1, 2, 4, 8."""
    x = F.relu_(run.norm(run.conv(x, "conv0"), "norm0"))
    for stage in range(1, 5):
        for i in (1, 2):
            name, stride = f"stage{stage}_{i}", 2 if stage > 1 and i == 1 else 1
            y = F.relu_(run.norm(run.conv(x, f"{name}/conv1", stride), f"{name}/norm1"))
            y = run.norm(run.conv(y, f"{name}/conv2"), f"{name}/norm2")
            if run.has(f"{name}/shortcut"):
                x = run.norm(run.conv(x, f"{name}/shortcut", stride), f"{name}/norm3")
            x = F.relu_(x + y)
    return x.mean((2, 3))


NETS = {"ConvNetBN": conv_net, "ResNet18BN": resnet18}


def fresh(name: str, width: int, classes: int, device: torch.device) -> Net:
    """Return an untrained net for images of 32x32x3 (ConvNetBN: three blocks)."""
    net = Net(NETS[name])

    def layer(conv: str, size: int, inputs: int, outputs: int) -> None:
        kernel = torch.randn(outputs, inputs, size, size, device=device) / (size * inputs**0.5)
        net.kernels[conv] = kernel.contiguous(memory_format=torch.channels_last)
        one, zero = torch.ones(outputs, device=device), torch.zeros(outputs, device=device)
        after = conv.replace("shortcut", "conv3").replace("conv", "norm")
        net.norms[after] = norm(one, zero, zero, one)

    features = width * (16 if name == "ConvNetBN" else 8)
    if name == "ConvNetBN":
        for i in (1, 2, 3):
            layer(f"conv{i}", 3, 3 if i == 1 else width, width)
            net.biases[f"conv{i}"] = torch.zeros(width, device=device)
    else:
        layer("conv0", 3, 3, width)
        for stage, of in enumerate((width, width, 2 * width, 4 * width), 1):
            to = width * 2 ** (stage - 1)
            layer(f"stage{stage}_1/conv1", 3, of, to)
            for rest in ("1/conv2", "2/conv1", "2/conv2"):
                layer(f"stage{stage}_{rest}", 3, to, to)
            if of != to:
                layer(f"stage{stage}_1/shortcut", 1, of, to)
    net.kernels["head"] = torch.randn(classes, features, device=device) / features**0.5
    net.biases["head"] = torch.zeros(classes, device=device)
    return net
