"""MTT's outer step by plain back-propagation through N differentiable student steps.

    theta_{j+1} = theta_j - beta grad l(A_j(S), y; theta_j),
    L = ||theta_N - theta*_{t+M}||^2 / ||theta*_t - theta*_{t+M}||^2;   dL/dS and dL/dbeta

Source: Cazenavette et al., CVPR 2022, algorithm 1. Every step's graph is alive until the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import convnet, dsa


class Segment(NamedTuple):
    """An expert's weights at both ends, synthetic images, their labels [n], the student's rate."""

    start: list[Tensor]
    target: list[Tensor]
    images: Tensor
    labels: Tensor
    rate: Tensor


class Gradient(NamedTuple):
    """The loss, and its gradients in the images and in the student's rate."""

    loss: Tensor
    images: Tensor
    rate: Tensor


def meta_gradient(segment: Segment, draws: Sequence[dsa.Draw]) -> Gradient:
    """Return loss and gradients for one student step a draw, all images in each."""
    start, target, images, labels, rate = segment
    images, rate = images.detach().requires_grad_(), rate.detach().requires_grad_()
    theta = [w.detach().requires_grad_() for w in start]
    for drawn in draws:
        loss = F.cross_entropy(convnet.forward(theta, dsa.apply(drawn, images)), labels)
        g = torch.autograd.grad(loss, theta, create_graph=True)
        theta = [w - rate * d for w, d in zip(theta, g, strict=True)]
    loss = squared_distance(theta, target) / squared_distance(start, target)
    d_images, d_rate = torch.autograd.grad(loss, (images, rate))
    return Gradient(loss.detach(), d_images, d_rate)


def squared_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return ||a - b||^2 over all weights."""
    return torch.stack([(x - y).square().sum() for x, y in zip(a, b, strict=True)]).sum()
