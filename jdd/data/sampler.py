"""Drawing real images by class: for initialisation, random baselines and class-wise batches."""

from __future__ import annotations

from collections.abc import Sequence

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
    rng: np.random.Generator, labels: np.ndarray, classes: int, ipc: int, short: str = "refuse"
) -> np.ndarray:
    """Draw ``ipc`` images of every class, different ones as far as there are as many.

    Args:
      rng: the generator of the draw, from ``jdd.rng.host``.
      labels: int [n], each in 0..classes-1.
      classes: the number of classes C.
      ipc: images per class, at least 1.
      short: ``config.ipc_short``. Unless it is "refuse", a class of fewer images gives each of them
        ``ipc // size`` times or once more, in one order repeated.

    Returns:
      int indices [C * ipc] into ``labels``, class-major: ipc of class 0, then ipc of class 1, ...

    Raises:
      BadInput: ipc is below 1, above the size of the smallest class although ``short`` is
        "refuse", or a class has no image.
    """
    groups = class_indices(labels, classes)
    validate_ipc(groups, ipc, short)
    return np.concatenate(
        [
            rng.choice(group, ipc, replace=False)
            if len(group) >= ipc
            else np.resize(rng.permutation(group), ipc)
            for group in groups
        ]
    )


def validate_ipc(groups: Sequence[np.ndarray], ipc: int, short: str = "refuse") -> None:
    """Refuse more images per class than the smallest of ``groups`` has, by ``config.ipc_short``.

    Raises:
      BadInput: as ``draw_per_class``.
    """
    smallest = min(len(group) for group in groups)
    if smallest and (1 <= ipc <= smallest or ipc >= 1 and short != "refuse"):
        return
    if not smallest:
        at = next(c for c, group in enumerate(groups) if not len(group))
        raise BadInput("config.data", f"no training image of class {at}", "one or more of each")
    allowed = f"1 to {smallest}, the size of the smallest class"
    if ipc > smallest:
        allowed += "; or --config.ipc_short=repeat, and smaller classes give images several times"
    raise BadInput("config.ipc", str(ipc), allowed)


def lacking(labels: np.ndarray, classes: int, ipc: int) -> np.ndarray:
    """Return which places of a class-major set have no real image of their own, bool [C * ipc].

    They are the places of ``draw_per_class`` at which a smaller class repeats its images.
    """
    sizes = np.bincount(labels, minlength=classes)
    found: np.ndarray = (np.arange(ipc) >= sizes[:, None]).ravel()
    return found
