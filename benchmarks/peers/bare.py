"""What a peer cannot do without: its forward and backward passes alone.

No augmentation, no update, no distance, no draws; every pass starts from the same weights and
frees its graph. A peer's time over this floor says how good a peer it is.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import convnet, vl
from benchmarks.peers.frozen import Net, Pass
from benchmarks.peers.gradient_matching import Classes
from benchmarks.peers.mtt import Segment
from benchmarks.peers.recover import Batch


def meta(segment: Segment, steps: int, second_order: bool = True) -> None:
    """Per student step: forward, backward with its graph, backward of that (weights and images).

    Without ``second_order`` TESLA's: forward and backward, then forward, backward with its graph
    and backward of that in the images alone.
    """
    theta = [w.detach().requires_grad_() for w in segment.start]
    images = segment.images.detach().requires_grad_()
    v = [w.detach() for w in segment.target]
    for _ in range(steps):
        if not second_order:
            loss = F.cross_entropy(convnet.forward(theta, segment.images), segment.labels)
            torch.autograd.grad(loss, theta)
        loss = F.cross_entropy(convnet.forward(theta, images), segment.labels)
        g = torch.autograd.grad(loss, theta, create_graph=True)
        torch.autograd.grad(g, [*theta, images] if second_order else images, v)


def pairs(segment: vl.Segment, steps: int) -> None:
    """Per student step of VL or LoRS: as ``meta``, the last backward pass in all that is learned
    but the rates.
    """
    theta = {path: w.detach().requires_grad_() for path, w in segment.start.items()}
    learned = {
        name: x.detach().requires_grad_()
        for name, x in segment.learned.items()
        if not name.startswith("lr/")
    }
    inputs, v = list(theta.values()), [segment.target[path].detach() for path in theta]
    for _ in range(steps):
        g = torch.autograd.grad(vl.inner_loss(theta, learned, segment), inputs, create_graph=True)
        torch.autograd.grad(g, [*inputs, *learned.values()], v)


def training(weights: list[Tensor], images: Tensor, labels: Tensor, steps: int) -> None:
    """Per training step: forward and backward."""
    theta = [w.detach().requires_grad_() for w in weights]
    for _ in range(steps):
        loss = F.cross_entropy(convnet.forward(theta, images), labels)
        torch.autograd.grad(loss, theta)


def gradient_matching(classes: Classes) -> None:
    """Per class: forward and backward of its real images; of its synthetic ones forward, backward
    with its graph, and backward of that in the images.
    """
    theta = [w.detach().requires_grad_(w.ndim > 1) for w in classes.weights]
    matched = [w for w in theta if w.ndim > 1]
    v = [w.detach() for w in matched]
    for real, own in zip(classes.real, classes.images.split(classes.ipc), strict=True):
        labels = torch.zeros(max(len(real), len(own)), dtype=torch.long, device=real.device)
        loss = F.cross_entropy(convnet.forward(theta, real), labels[: len(real)])
        torch.autograd.grad(loss, matched)
        own = own.detach().requires_grad_()
        loss = F.cross_entropy(convnet.forward(theta, own), labels[: len(own)])
        g = torch.autograd.grad(loss, matched, create_graph=True)
        torch.autograd.grad(g, own, v)


def distribution_matching(classes: Classes) -> None:
    """Forward of the real images, class by class; forward and backward of the synthetic ones."""
    theta = [w.detach() for w in classes.weights]
    with torch.no_grad():
        for real in classes.real:
            convnet.features(theta, real)
    images = classes.images.detach().requires_grad_()
    torch.autograd.grad(convnet.features(theta, images).sum(), images)


def recovery(net: Net, batch: Batch) -> None:
    """Forward and backward of the images; no view, no statistics."""
    images = batch.images.detach().requires_grad_()
    logits = Pass(net, watch=False).logits(images)
    torch.autograd.grad(F.cross_entropy(logits, batch.labels), images)
