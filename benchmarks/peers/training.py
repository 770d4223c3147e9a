"""Ordinary training in PyTorch: evaluation nets and experts, one net after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.peers import convnet, dsa


class Recipe(NamedTuple):
    """SGD's settings; ``drop_epoch`` is the first at a tenth of the rate, negative for none."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch: int = 256
    strategy: str = ""
    drop_epoch: int = -1


def train(
    weights: list[Tensor], images: Tensor, labels: Tensor, epochs: int, recipe: Recipe
) -> Tensor:
    """Train ``weights`` in place for ``epochs`` shuffled epochs; return the last batch's loss."""
    lr, loss = recipe.lr, torch.zeros(())
    optimizer = _sgd(weights, lr, recipe)
    for epoch in range(epochs):
        if epoch == recipe.drop_epoch:
            optimizer = _sgd(weights, lr / 10, recipe)
        for x, y in _batches(images, labels, recipe.batch):
            x = dsa.apply(dsa.draw(recipe.strategy, x), x)
            loss = F.cross_entropy(convnet.forward(weights, x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss.detach()


def train_nets(
    fresh: Callable[[], list[Tensor]],
    count: int,
    images: Tensor,
    labels: Tensor,
    epochs: int,
    recipe: Recipe,
) -> list[list[Tensor]]:
    """Train ``count`` nets of ``fresh`` weights, one after another, and return their weights."""
    trained = []
    for _ in range(count):
        weights = fresh()
        train(weights, images, labels, epochs, recipe)
        trained.append(weights)
    return trained


def _batches(images: Tensor, labels: Tensor, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    if len(images) <= batch:  # the whole set in one batch: its order says nothing
        yield images, labels
        return
    for rows in torch.randperm(len(images), device=images.device).split(batch):
        yield images[rows], labels[rows]


def _sgd(weights: list[Tensor], lr: float, recipe: Recipe) -> torch.optim.SGD:
    return torch.optim.SGD(
        weights, lr=lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay, fused=True
    )
