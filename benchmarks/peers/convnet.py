"""The papers' ConvNet as a function of its weights, and PyTorch's default initialisation.

Weights are a flat list: for each block kernel [o, i, 3, 3], bias, scale, offset; then the linear
layer's matrix [classes, features] and bias.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def forward(weights: list[Tensor], x: Tensor) -> Tensor:
    """Return logits [n, classes] of images [n, c, h, w]."""
    return F.linear(features(weights, x), weights[-2], weights[-1])


def features(weights: list[Tensor], x: Tensor) -> Tensor:
    """Return what the linear layer reads, [n, d], of images [n, c, h, w].

    Blocks of conv 3x3 -> instance norm -> ReLU -> average pool 2x2; padding 3 in the first
    convolution for one channel.
    """
    padding = 3 if x.shape[1] == 1 else 1
    for i in range(0, len(weights) - 2, 4):
        kernel, bias, scale, offset = weights[i : i + 4]
        x = F.conv2d(x, kernel, bias, padding=padding)
        x = F.avg_pool2d(F.relu(F.group_norm(x, x.shape[1], scale, offset, EPS)), 2)
        padding = 1
    return x.flatten(1)


def initial(
    shape: tuple[int, int, int], classes: int, width: int, depth: int, device: torch.device
) -> list[Tensor]:
    """Return fresh weights for images of ``shape`` (h, w, c), leaves that ask for gradients.

    Kernels and biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)), norms at identity.
    """
    h, w, channels = shape
    if channels == 1:
        h, w = h + 4, w + 4
    weights = []
    for _ in range(depth):
        kernel = torch.empty(width, channels, 3, 3, device=device)
        weights += _uniform(kernel.contiguous(memory_format=torch.channels_last))
        weights += [torch.ones(width, device=device), torch.zeros(width, device=device)]
        channels, h, w = width, h // 2, w // 2
    weights += _uniform(torch.empty(classes, h * w * channels, device=device))
    return [weight.requires_grad_() for weight in weights]


def _uniform(kernel: Tensor) -> list[Tensor]:
    bound = 1 / math.sqrt(kernel[0].numel())
    bias = torch.empty(len(kernel), device=kernel.device)
    return [kernel.uniform_(-bound, bound), bias.uniform_(-bound, bound)]
