"""DC's matching step, and DSA's: the gradients of real and of synthetic images, class by class.

    g_c = grad l(A_c(R_c); theta),   L = sum_c D(grad l(A_c(S_c); theta), g_c);   dL/dS
    D(A, B) = sum over layers and output units i of  1 - <A_i, B_i> / (|A_i| |B_i| + 1e-6)

Biases and per-channel scales do not count, so their gradients are not taken. A class's graph is
differentiated, and freed, before the next class begins.

Source: Zhao et al., ICLR 2021, section 3; the augmentation A_c: Zhao & Bilen, ICML 2021.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import convnet, dsa

EPS = 1e-6


class Classes(NamedTuple):
    """A net's weights, synthetic images [classes ipc, ...], and each class's real ones [b, ...]."""

    weights: list[Tensor]
    images: Tensor
    real: Sequence[Tensor]

    @property
    def ipc(self) -> int:
        """Synthetic images of a class."""
        return len(self.images) // len(self.real)


class Gradient(NamedTuple):
    """The loss, summed over classes, and its gradient in the images."""

    loss: Tensor
    images: Tensor


def distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Return D of the gradients of weight matrices and kernels, output units on axis 0."""
    total = a[0].new_zeros(())
    for x, y in zip(a, b, strict=True):
        x, y = x.flatten(1), y.flatten(1)
        lengths = torch.linalg.vector_norm(x, dim=1) * torch.linalg.vector_norm(y, dim=1)
        total = total + (1 - (x * y).sum(1) / (lengths + EPS)).sum()
    return total


def siamese(strategy: str, images: Tensor) -> dsa.Draw:
    """Draw one operation with one set of parameters, for all images of a class alike."""
    return dsa.draw(strategy, images[:1])


def match(classes: Classes, draws: Sequence[dsa.Draw]) -> Gradient:
    """Return loss and gradient of a step; ``draws`` holds a class's draw, of one image, each."""
    weights = [w.detach().requires_grad_(w.ndim > 1) for w in classes.weights]
    matched = [w for w in weights if w.ndim > 1]

    def gradient(x: Tensor, c: int, graph: bool) -> tuple[Tensor, ...]:
        labels = torch.full((len(x),), c, device=x.device)
        loss = F.cross_entropy(convnet.forward(weights, dsa.apply(alike(draws[c], x), x)), labels)
        return torch.autograd.grad(loss, matched, create_graph=graph)

    losses, grads = [], []
    for c, real in enumerate(classes.real):
        wanted = gradient(real, c, graph=False)
        own = classes.images[c * classes.ipc : (c + 1) * classes.ipc].detach().requires_grad_()
        loss = distance(gradient(own, c, graph=True), wanted)
        grads += torch.autograd.grad(loss, own)
        losses.append(loss.detach())
    return Gradient(torch.stack(losses).sum(), torch.cat(grads))


def alike(drawn: dsa.Draw, images: Tensor) -> dsa.Draw:
    """Return a draw of one image for all ``images`` (views, no copies)."""
    name, parameters = drawn
    return name, tuple(p.expand(len(images)) for p in parameters)


class ImageSGD:
    """SGD with momentum over the synthetic images."""

    def __init__(self, images: Tensor, lr: float, momentum: float):
        self.images = images.detach().clone()
        self._optimizer = torch.optim.SGD([self.images], lr=lr, momentum=momentum, fused=True)

    def step(self, gradient: Tensor) -> None:
        """Move the images along a gradient."""
        self.images.grad = gradient
        self._optimizer.step()
