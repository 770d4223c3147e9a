"""Selection of real images per class: deterministic rules on features.

Features are float [n, d], one row per image, scores float [n]; rules return rows in the order of
choice. Distances are summed directly, row by row, not expanded into products: equal images have
equal distances, so ties are exact and go to the lowest row.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from jdd.data.sampler import class_indices, validate_ipc
from jdd.errors import BadInput

Rule = Callable[..., np.ndarray]  # (features, count[, owners]) -> rows


def herding(features: np.ndarray, count: int, owners: np.ndarray | None = None) -> np.ndarray:
    """Choose ``count`` rows one by one, each to bring their mean nearest to the overall mean.

        i_k = argmin_i || mean(f) - (f_{i_1} + ... + f_{i_{k-1}} + f_i) / k ||,  i not yet chosen

    Args:
      owners: ``[n]``; of rows of equal owner at most one is chosen. None: each row has its own.

    Returns:
      int64 [count].

    Source: Welling, "Herding dynamical weights to learn", ICML 2009; in this form iCaRL (Rebuffi et
    al., CVPR 2017), algorithm 4.
    """
    rows, mean = _start(features, count)
    chosen = np.zeros(count, np.int64)
    free, total = np.ones(len(rows), bool), np.zeros_like(mean)
    for k in range(count):
        distance = _squared(rows, (k + 1) * mean - total)  # the factor 1/k keeps the order
        chosen[k] = np.argmin(np.where(free, distance, np.inf))
        free[_of_owner(chosen[k], owners)] = False
        total += rows[chosen[k]]
    return chosen


def kcenter(features: np.ndarray, count: int, owners: np.ndarray | None = None) -> np.ndarray:
    """Choose ``count`` rows: the nearest to the mean, then each the farthest from those chosen.

        i_1 = argmin_i ||f_i - mean(f)||,  i_k = argmax_i min_{j < k} ||f_i - f_{i_j}||

    Greedy farthest points: the largest distance of a row to its nearest chosen one is at most twice
    the smallest possible (Gonzalez 1985). Memory is one distance per row.

    Args:
      owners: as for ``herding``.

    Returns:
      int64 [count].

    Source: k-center as Sener and Savarese (ICLR 2018) use it for core-sets; starting at the mean is
    jdd's choice.
    """
    rows, mean = _start(features, count)
    chosen = np.zeros(count, np.int64)
    chosen[0] = np.argmin(_squared(rows, mean))
    nearest = np.full(len(rows), np.inf)
    for k in range(1, count):
        nearest = np.minimum(nearest, _squared(rows, rows[chosen[k - 1]]))
        nearest[
            _of_owner(chosen[k - 1], owners)
        ] = -np.inf  # never twice, not even if all others are its copies
        chosen[k] = np.argmax(nearest)
    return chosen


def error_norms(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return || softmax(logits) - onehot(label) ||_2 of each row, float64 ``[n]``.

    Args:
      logits: ``[n, classes]``.
      labels: int ``[n]``.

    Source: EL2N of Paul, Ganguli & Dziugaite, "Deep Learning on a Data Diet", NeurIPS 2021,
    definition 2.2.
    """
    z = np.asarray(logits, np.float64)
    p = np.exp(z - z.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(p)), labels] -= 1
    return np.linalg.norm(p, axis=1)


def band(scores: np.ndarray, count: int, place: float) -> np.ndarray:
    """Choose ``count`` rows of neighbouring scores: of the sorted ones, those from s on.

        s = floor(place (n - count) + 1/2)

    Args:
      scores: ``[n]``; of equal ones the lowest row comes first.
      place: 0 for the lowest scores, 1 for the highest, 0.5 for those in the middle.

    Returns:
      int64 [count], by ascending score.
    """
    if not 1 <= count <= len(scores):
        allowed = f"1 to {len(scores)}, the size of the smallest class"
        raise BadInput("config.ipc", str(count), allowed)
    first = int(np.floor(place * (len(scores) - count) + 0.5))
    return np.argsort(scores, kind="stable")[first : first + count]


def by_class(
    rule: Rule,
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    ipc: int,
    short: str = "refuse",
) -> np.ndarray:
    """Apply ``rule`` to each class; rows int64 [classes * ipc], class-major.

    Args:
      short: ``config.ipc_short``. Unless it is "refuse", a class of fewer images gives all of them
        in the order of choice, repeated.

    Raises:
      BadInput: a class has fewer than ``ipc`` images although ``short`` is "refuse".
    """
    groups = class_indices(labels, classes)
    validate_ipc(groups, ipc, short)
    return np.concatenate(
        [group[np.resize(rule(features[group], min(ipc, len(group))), ipc)] for group in groups]
    )


def _start(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows in float64 and their mean."""
    if not 1 <= count <= len(features):
        allowed = f"1 to {len(features)}, the size of the smallest class"
        raise BadInput("config.ipc", str(count), allowed)
    rows = np.asarray(features, np.float64)
    return rows, rows.mean(axis=0)


def _of_owner(row: int, owners: np.ndarray | None) -> np.ndarray | int:
    """Return the rows that are out once ``row`` is chosen."""
    return row if owners is None else owners == owners[row]


def _squared(rows: np.ndarray, point: np.ndarray) -> np.ndarray:
    return np.square(rows - point).sum(axis=1)
