"""The outer step of VL and LoRS by plain back-propagation through n differentiable student steps.

    theta_{j+1,b} = theta_{j,b} - alpha_b grad_b l(X, E; theta_j),  b image or text
    L = sum_b ||theta_{n,b} - theta*_{t+M,b}||^2 / ||theta*_{t,b} - theta*_{t+M,b}||^2

and dL/dX, dL/dE, dL/dalpha and, with a similarity S = diag(w) + (alpha / r) L R^T, those in w, L
and R. All pairs are in each step, and every step's graph is alive until the end.

The image tower is an NF-ResNet of basic blocks, with ReLU and a 3x3 stem (Brock et al., ICLR 2021);
the text tower is the projection head of Wu et al. (TMLR 2024), without dropout. Weights are a dict
from path ("image/stage1_1/conv1/kernel") to tensor.

Source: Wu et al., TMLR 2024, section 3.2; Xu et al. (LoRS), ICML 2024, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
BRANCHES = ("image", "text")
GAMMA = 1.7139588594436646  # the authors' sampled constant for ReLU
ALPHA, EPS = 0.2, 1e-5
SMALL = 1e-6  # in the logarithms and the denominators of the weighted loss


class Segment(NamedTuple):
    """What one outer step reads.

    start, target: an expert's weights at both ends.
    learned: "images" [n, c, h, w], "text" [n, d], the rates "lr/image" and "lr/text" and, of LoRS,
      "similarity/w" [n], "similarity/left" and "similarity/right" [n, r].
    loss: "nce" or "wbce".
    alpha: the weight of the similarity's low-rank part.
    tau: the temperature.
    """

    start: Weights
    target: Weights
    learned: dict[str, Tensor]
    loss: str = "wbce"
    alpha: float = 1.0
    tau: float = 0.07


class Gradient(NamedTuple):
    """The loss, and its gradients by the names of what is learned."""

    loss: Tensor
    learned: dict[str, Tensor]


def meta_gradient(segment: Segment, steps: int) -> Gradient:
    """Return loss and gradients of an outer step of ``steps`` student steps."""
    learned = {name: x.detach().requires_grad_() for name, x in segment.learned.items()}
    theta = {path: w.detach().requires_grad_() for path, w in segment.start.items()}
    for _ in range(steps):
        loss = inner_loss(theta, learned, segment)
        g = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
        theta = {
            path: w - learned[f"lr/{path.split('/')[0]}"] * d
            for (path, w), d in zip(theta.items(), g, strict=True)
        }
    loss = torch.stack(
        [
            _distance(theta, segment.target, b) / _distance(segment.start, segment.target, b)
            for b in BRANCHES
        ]
    ).sum()
    found = torch.autograd.grad(loss, list(learned.values()))
    return Gradient(loss.detach(), dict(zip(learned, found, strict=True)))


def inner_loss(theta: Weights, learned: dict[str, Tensor], segment: Segment) -> Tensor:
    """Return the contrastive loss of all pairs."""
    image, text = _unit(nfresnet(theta, learned["images"])), _unit(head(theta, learned["text"]))
    target = torch.eye(len(text), dtype=text.dtype, device=text.device)
    if "similarity/w" in learned:
        w, left, right = (learned[f"similarity/{name}"] for name in ("w", "left", "right"))
        target = torch.diag(w) + (segment.alpha / left.shape[1]) * left @ right.T
    return LOSSES[segment.loss](image @ text.T / segment.tau, target)


def nfresnet(weights: Weights, x: Tensor) -> Tensor:
    """Return embeddings [n, size] of images [n, c, h, w]."""
    x = _conv(weights, "image/conv0", x, 1, 1)
    variance, stage = 1.0, 1
    while f"image/stage{stage}_1/conv1/kernel" in weights:
        i = 1
        while f"image/stage{stage}_{i}/conv1/kernel" in weights:
            stride = 2 if stage > 1 and i == 1 else 1
            x = _block(weights, f"image/stage{stage}_{i}", x, stride, math.sqrt(variance))
            variance = (1.0 if i == 1 else variance) + ALPHA**2
            i += 1
        stage += 1
    pooled = F.relu(x).mean((2, 3))
    return F.linear(pooled, weights["image/head/kernel"], weights["image/head/bias"])


def head(weights: Weights, e: Tensor) -> Tensor:
    """Return embeddings [n, size] of text vectors [n, d]."""
    p = F.linear(e, weights["text/in/kernel"], weights["text/in/bias"])
    x = p + F.linear(F.gelu(p), weights["text/out/kernel"], weights["text/out/bias"])
    return F.layer_norm(x, x.shape[1:], weights["text/scale"], weights["text/bias"], 1e-5)


def _block(weights: Weights, path: str, x: Tensor, stride: int, deviation: float) -> Tensor:
    y = F.relu(x) * (GAMMA / deviation)
    if f"{path}/shortcut/kernel" in weights:
        pooled = y
        if stride == 2:
            pooled = F.avg_pool2d(y, 2, ceil_mode=True, count_include_pad=False)
        x = _conv(weights, f"{path}/shortcut", pooled, 1, 0)
    y = _conv(weights, f"{path}/conv1", y, stride, 1)
    y = _conv(weights, f"{path}/conv2", F.relu(y) * GAMMA, 1, 1)
    return x + ALPHA * y


def _conv(weights: Weights, path: str, x: Tensor, stride: int, padding: int) -> Tensor:
    kernel, gain = weights[f"{path}/kernel"], weights[f"{path}/gain"]
    variance, mean = torch.var_mean(kernel, (1, 2, 3), correction=0, keepdim=True)
    scale = torch.rsqrt(kernel[0].numel() * (variance + EPS)) * gain.view(-1, 1, 1, 1)
    return F.conv2d(x, (kernel - mean) * scale, weights[f"{path}/bias"], stride, padding)


def _nce(logits: Tensor, target: Tensor) -> Tensor:
    rows = (target * F.log_softmax(logits, 1)).sum(1).mean()
    return -0.5 * (rows + (target * F.log_softmax(logits, 0)).sum(0).mean())


def _weighted_bce(logits: Tensor, target: Tensor) -> Tensor:
    p = torch.sigmoid(logits)
    cells = -target * torch.log(p + SMALL) - (1 - target) * torch.log(1 - p + SMALL)
    positive = (target.detach() > 0.5).to(cells.dtype)
    parts = [(m * cells).sum() / (m.sum() + SMALL) for m in (positive, 1 - positive)]
    return 0.5 * (parts[0] + parts[1])


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"nce": _nce, "wbce": _weighted_bce}


def _unit(x: Tensor) -> Tensor:
    return x * torch.rsqrt(x.square().sum(1, keepdim=True) + 1e-12)


def _distance(a: Weights, b: Weights, branch: str) -> Tensor:
    """Return ||a - b||^2 over the weights of a branch."""
    paths = [path for path in a if path.startswith(f"{branch}/")]
    return torch.stack([(a[path] - b[path]).square().sum() for path in paths]).sum()
