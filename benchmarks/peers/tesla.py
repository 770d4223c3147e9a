"""TESLA's outer step: MTT's loss with a gradient in two passes, in constant memory.

With g_j the student's gradients, G their sum, r = theta*_{t+M} - theta*_t and D = ||r||^2,

    L = ||beta G + r||^2 / D,     v = beta r + beta^2 G
    dL/dS = (2 / D) sum_j d/dS [v . g_j],     dL/dbeta = (2 / D) (beta G + r) . G

with theta_j and G taken as constants. Pass 1 sums G; pass 2 goes the same way again, with the same
augmentations, and differentiates each v . g_j; it needs no theta_j kept, since it makes them anew.

Source: Cui et al., ICML 2023, section 3, with the factor 2 of its equation on the images as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import convnet, dsa
from benchmarks.peers.mtt import Gradient, Segment, squared_distance


def meta_gradient(segment: Segment, draws: Sequence[dsa.Draw]) -> Gradient:
    """Return loss and TESLA's gradients for one student step a draw, all images in each."""
    start, target, images, labels, rate = segment

    def student(theta: list[Tensor], x: Tensor, graph: bool) -> tuple[Tensor, ...]:
        loss = F.cross_entropy(convnet.forward(theta, x), labels)
        return torch.autograd.grad(loss, theta, create_graph=graph)

    def moved(theta: list[Tensor], g: Sequence[Tensor]) -> list[Tensor]:
        return [(w - rate * d).detach().requires_grad_() for w, d in zip(theta, g, strict=True)]

    theta = first = [w.detach().requires_grad_() for w in start]
    total = [torch.zeros_like(w) for w in start]
    for drawn in draws:
        g = student(theta, dsa.apply(drawn, images.detach()), graph=False)
        torch._foreach_add_(total, list(g))
        theta = moved(theta, g)

    distance = squared_distance(start, target)
    left = [rate * s + (b - a) for s, a, b in zip(total, start, target, strict=True)]
    loss = squared_distance(left, [torch.zeros_like(w) for w in left]) / distance
    d_rate = 2 / distance * sum((a * s).sum() for a, s in zip(left, total, strict=True))

    v = [2 / distance * rate * w for w in left]
    theta, d_images = first, torch.zeros_like(images)
    for drawn in draws:
        x = images.detach().requires_grad_()
        g = student(theta, dsa.apply(drawn, x), graph=True)
        d_images += torch.autograd.grad(g, x, v)[0]
        theta = moved(theta, [d.detach() for d in g])
    return Gradient(loss, d_images, d_rate)
