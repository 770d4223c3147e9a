"""How good generated images are, measured on features of real and of generated ones.

Features are rows f(x) of a net, float ``[n, d]``: r_1 .. r_n of real images, g_1 .. g_m of
generated ones. They are those of the classifier that the caller names: no figure here is the FID of
an Inception net, nor comparable with one. With mu and S the mean and covariance of each side,

    Frechet distance   |mu_r - mu_g|^2 + tr(S_r + S_g - 2 (S_r^1/2 S_g S_r^1/2)^1/2)

and with B(x, k) the ball around x up to the k-th nearest other row of its own side,

    precision   share of g_j in a ball B(r_i, k) of some i
    recall      share of r_i in a ball B(g_j, k) of some j
    density     1/(k m) sum_j #{i: g_j in B(r_i, k)}
    coverage    share of the balls B(r_i, k) that hold some g_j

Sources: Heusel et al. 2017 (Frechet distance, equation 6), Kynkaanniemi et al. 2019 (precision and
recall, section 2), Naeem et al. 2020 (density and coverage, equations 3 and 4).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BLOCK = 512  # rows of a matrix of distances that is held at once


class Figures(NamedTuple):
    """The figures of generated images; density alone may exceed 1."""

    frechet: float
    precision: float
    recall: float
    density: float
    coverage: float


def figures(real: np.ndarray, made: np.ndarray, k: int) -> Figures:
    """Return the figures of generated images from features ``[n, d]`` and ``[m, d]``.

    Args:
      k: the neighbour that a ball reaches to; below n and m.

    Raises:
      ValueError: k is 0, or there are not more rows than k on a side.
    """
    real, made = (np.asarray(a, np.float64) for a in (real, made))
    shift = real.mean(axis=0)  # distances are differences of squares: small numbers keep them exact
    real, made = real - shift, made - shift
    of_real, of_made = radii(real, k), radii(made, k)
    held = np.zeros(len(made), np.int64)  # balls of real images that hold each generated one
    covered, recalled = (np.zeros(len(real), bool) for _ in range(2))
    for lo in range(0, len(real), BLOCK):
        rows = slice(lo, lo + BLOCK)
        between = distances(real[rows], made)
        inside = between <= of_real[rows, None]
        held += inside.sum(axis=0)
        covered[rows] = inside.any(axis=1)
        recalled[rows] = (between <= of_made[None, :]).any(axis=1)
    return Figures(
        frechet(real, made),
        float((held > 0).mean()),
        float(recalled.mean()),
        float(held.mean() / k),
        float(covered.mean()),
    )


def frechet(real: np.ndarray, made: np.ndarray) -> float:
    """Return the Frechet distance of the Gaussians with the rows' means and covariances.

    Covariances divide by n - 1. It is biased upwards, by more the fewer rows there are for their
    d columns: compare figures of equal n alone.
    """
    real, made = (np.asarray(a, np.float64) for a in (real, made))
    first, second = (np.atleast_2d(np.cov(a, rowvar=False)) for a in (real, made))
    # The trace of the last root is the sum of the singular values of S_r^1/2 S_g^1/2, which loses
    # fewer digits where covariances are singular.
    shared = np.linalg.svd(_root(first) @ _root(second), compute_uv=False).sum()
    moved = real.mean(axis=0) - made.mean(axis=0)
    spread = np.trace(first) + np.trace(second) - 2.0 * shared
    return float(max(0.0, moved @ moved + spread))


def _root(matrix: np.ndarray) -> np.ndarray:
    """Return the symmetric root of a covariance; rounded eigenvalues below 0 count as 0."""
    values, vectors = np.linalg.eigh(matrix)
    found: np.ndarray = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    return found


def radii(rows: np.ndarray, k: int) -> np.ndarray:
    """Return each row's distance to its k-th nearest other row, float64 ``[n]``.

    Raises:
      ValueError: k is 0, or there are not more rows than k.
    """
    if not 0 < k < len(rows):
        raise ValueError(f"k = {k} of {len(rows)} rows")
    found = np.empty(len(rows))
    for lo in range(0, len(rows), BLOCK):
        between = distances(rows[lo : lo + BLOCK], rows)
        at = np.arange(len(between))
        between[at, lo + at] = np.inf
        found[lo : lo + BLOCK] = np.partition(between, k - 1, axis=1)[:, k - 1]
    return found


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Euclidean distances of rows ``[n, d]`` and ``[m, d]``, ``[n, m]``."""
    square = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None, :] - 2.0 * (a @ b.T)
    found: np.ndarray = np.sqrt(np.maximum(square, 0.0))
    return found


class Nearest(NamedTuple):
    """The nearest image of each: its row, and the root mean square difference of the pixels."""

    row: np.ndarray
    distance: np.ndarray


def nearest(images: np.ndarray, among: Any, inverse: Any, own: np.ndarray | None = None) -> Nearest:
    """Return the nearest of the images ``among`` to each of ``images``, pixel by pixel.

    Args:
      images: pixels ``[n, h, w, c]``.
      among: ``[m, h, w, c]``, an array or ``Streamed``, read by parts.
      inverse: maps such a part to pixels.
      own: for images that are themselves rows of ``among``, these rows, which do not count.
    """
    rows = np.asarray(images, np.float64).reshape(len(images), -1)
    best = Nearest(np.zeros(len(rows), np.int64), np.full(len(rows), np.inf))
    for lo in range(0, len(among), BLOCK):
        part = np.asarray(inverse(among[lo : lo + BLOCK]), np.float64)
        between = distances(rows, part.reshape(len(part), -1))
        if own is not None:
            mine = np.flatnonzero((own >= lo) & (own < lo + len(part)))
            between[mine, own[mine] - lo] = np.inf
        at = between.argmin(axis=1)
        least = between[np.arange(len(rows)), at]
        closer = least < best.distance
        best = Nearest(np.where(closer, lo + at, best.row), np.minimum(least, best.distance))
    return best._replace(distance=best.distance / np.sqrt(rows.shape[1]))


def between(first: np.ndarray, last: np.ndarray, count: int) -> np.ndarray:
    """Return ``count`` latents on the great circle from ``first`` to ``last``, ``[count, d]``.

    z_t = (sin((1 - t) a) z_0 + sin(t a) z_1) / sin a, with a the angle of z_0 and z_1: latents of a
    Gaussian keep a typical length, which those of a straight line do not (White 2016, section 2.1).
    """
    t = np.linspace(0.0, 1.0, count)[:, None]
    lengths = np.linalg.norm(first) * np.linalg.norm(last)
    angle = np.arccos(np.clip(first @ last / max(lengths, 1e-12), -1.0, 1.0))
    if np.sin(angle) < 1e-6:
        found: np.ndarray = (1.0 - t) * first + t * last
        return found
    found = (np.sin((1.0 - t) * angle) * first + np.sin(t * angle) * last) / np.sin(angle)
    return found
