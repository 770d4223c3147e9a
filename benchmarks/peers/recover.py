"""SRe2L's recover step: images move so that a trained net finds them real, and of their class.

    L = CE(f(A(X)), y) + r_bn sum_l w_l (|mean_l - mean^_l| + |var_l - var^_l|);   dL/dX
    X <- clip(X - Adam(0.5, 0.9)(dL/dX)) at lr (1 + cos(pi t / steps)) / 2

mean_l and var_l are of what enters batch norm l, mean^_l and var^_l its running statistics; w is
``first`` for the first, else 1. A is one crop, flip and circular shift for the whole batch.

Source: Yin, Xing & Shen, NeurIPS 2023, section 3.
"""

from __future__ import annotations

import math
import random
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers.frozen import Net, Pass

TRIES = 10


class View(NamedTuple):
    """A crop of ``box`` (top, left, height, width) made large again, a flip, a circular shift."""

    box: tuple[int, int, int, int]
    flip: bool
    shift: tuple[int, int]


class Batch(NamedTuple):
    """Images [n, c, h, w] recovered together, their labels [n], and how they are looked at."""

    images: Tensor
    labels: Tensor
    view: View


class Recipe(NamedTuple):
    """A step's settings; ``low``, ``high`` [c] are black and white, ``crop`` "resized" or none."""

    lr: float
    steps: int
    r_bn: float
    first: float
    low: Tensor
    high: Tensor
    roll: int = 4
    flip: float = 0.0
    crop: str = "none"
    scale: float = 0.08


class Gradient(NamedTuple):
    """The loss and its gradient in the images."""

    loss: Tensor
    images: Tensor


def draw(recipe: Recipe, h: int, w: int) -> View:
    """Draw a view of images of h x w pixels."""
    box = _resized(recipe.scale, h, w) if recipe.crop == "resized" else (0, 0, h, w)
    shift = random.randint(0, recipe.roll), random.randint(0, recipe.roll)
    return View(box, random.random() < recipe.flip, shift)


def _resized(least: float, h: int, w: int) -> tuple[int, int, int, int]:
    for _ in range(TRIES):
        area = random.uniform(least, 1) * h * w
        ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        rows, cols = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < rows <= h and 0 < cols <= w:
            return random.randint(0, h - rows), random.randint(0, w - cols), rows, cols
    return 0, 0, h, w


def apply(view: View, images: Tensor) -> Tensor:
    """Return the view of images [n, c, h, w]."""
    size = images.shape[2:]
    top, left, rows, cols = view.box
    if (rows, cols) != tuple(size):
        images = images[:, :, top : top + rows, left : left + cols]
        images = F.interpolate(images, size=size, mode="bilinear", align_corners=False)
    images = images.flip(3) if view.flip else images
    return images.roll(view.shift, (2, 3)) if any(view.shift) else images


def match(net: Net, batch: Batch, recipe: Recipe) -> Gradient:
    """Return the loss of a batch and its gradient."""
    images, run = batch.images.detach().requires_grad_(), Pass(net)
    loss = F.cross_entropy(run.logits(apply(batch.view, images)), batch.labels)
    for i, (layer, mean, var) in enumerate(run.statistics):
        apart = torch.linalg.vector_norm(mean - layer.mean)
        apart = apart + torch.linalg.vector_norm(var - layer.var)
        loss = loss + recipe.r_bn * (apart if i else recipe.first * apart)
    return Gradient(loss.detach(), torch.autograd.grad(loss, images)[0])


class ImageAdam:
    """The update of a batch of images, and its clip."""

    def __init__(self, images: Tensor, recipe: Recipe):
        self.images, self.taken, self._recipe = images.detach().clone(), 0, recipe
        self._low, self._high = (end[:, None, None] for end in (recipe.low, recipe.high))
        self._optimizer = torch.optim.Adam(
            [self.images], lr=recipe.lr, betas=(0.5, 0.9), eps=1e-8, fused=True
        )

    def step(self, gradient: Tensor) -> None:
        """Move the images along a gradient."""
        part = min(self.taken / self._recipe.steps, 1.0)
        rate = self._recipe.lr * (1 + math.cos(math.pi * part)) / 2
        self._optimizer.param_groups[0]["lr"] = rate
        # Fused Adam walks both as they lie in memory: unless they lie alike it mixes pixels up.
        self.images.grad = torch.empty_like(self.images).copy_(gradient)
        self._optimizer.step()
        self.images.clamp_(self._low, self._high)
        self.taken += 1
