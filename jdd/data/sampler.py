"""Drawing real images by class: for initialisation, random baselines and class-wise batches."""

from __future__ import annotations

import numpy as np

from jdd.errors import BadInput


def class_indices(labels: np.ndarray, classes: int) -> list[np.ndarray]:
    """Return, for each class 0..classes-1, the ascending indices of its images.

    Args:
      labels: int [n], each in 0..classes-1.
      classes: the number of classes C.

    Returns:
      C integer arrays that partition 0..n-1; empty for a class without images.
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    bounds = np.searchsorted(labels[order], np.arange(classes + 1))
    return [order[a:b] for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def draw_per_class(
    rng: np.random.Generator, labels: np.ndarray, classes: int, ipc: int
) -> np.ndarray:
    """Draw ``ipc`` different images of every class.

    Args:
      rng: the generator of the draw, from ``jdd.rng.host``.
      labels: int [n], each in 0..classes-1.
      classes: the number of classes C.
      ipc: images per class, at least 1.

    Returns:
      int indices [C * ipc] into ``labels``, class-major: ipc of class 0, then ipc of class 1, ...

    Raises:
      BadInput: ipc is below 1 or above the size of the smallest class.
    """
    groups = class_indices(labels, classes)
    smallest = min(len(group) for group in groups)
    if not 1 <= ipc <= smallest:
        raise BadInput(
            "config.ipc", str(ipc), f"allowed are 1 to {smallest}, the size of the smallest class"
        )
    return np.concatenate([rng.choice(group, ipc, replace=False) for group in groups])
