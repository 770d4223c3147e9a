"""Prototypes: per-class k-means of latents, fitted buffer by buffer.

The latents of a class are buffered. A buffer of ``expand`` k latents is given to
``MiniBatchKMeans.partial_fit`` and emptied. The first buffer of a class is also that of the
k-means++ initialisation. Every buffer then assigns its latents to the nearest centres and moves

    c_j <- (n_j c_j + sum of the latents assigned to j) / (n_j + their number),

so that a centre is the running mean of all latents that were ever assigned to it. A centre whose
n_j is below a hundredth of the largest moves to a random latent of the buffer, as in scikit-learn.

Source: D4M (Su et al., CVPR 2024), section 3.2; cluster sizes as weights: DDOQ (Tan & Slade 2025).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from jdd import rng


class Clusters(NamedTuple):
    """Clusters of one class.

    Attributes:
      centres: float32 [k, *latent].
      fitted: latents that were given to the fit; fewer than all if a remainder was dropped.
    """

    centres: np.ndarray
    fitted: int


def fit(
    batches: Iterable[np.ndarray],
    k: int,
    expand: int,
    seed: int,
    label: int,
    remainder: bool = True,
) -> Clusters:
    """Fit the prototypes of a class.

    A class that does not fill a buffer is fitted from its remainder.

    Args:
      batches: latents of the class, float [n, *latent] each, in the order of the fit.
      k: prototypes; the class has at least as many latents.
      expand: latents in a buffer for each prototype.
      seed, label: k-means draws from (seed, "d4m/kmeans", label).
      remainder: fit the latents after the last whole buffer too.

    Raises:
      ValueError: no buffer was filled and the remainder is dropped, or is smaller than k.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    state = int(rng.host(seed, "d4m/kmeans", label).integers(2**31))
    means = MiniBatchKMeans(
        k, random_state=state, batch_size=expand * k, n_init="auto", compute_labels=False
    )
    shape: tuple[int, ...] = ()
    fitted = 0
    # A buffer is small: threads would cost more than they save, far more on a busy machine.
    with threadpool_limits(1):
        for buffer in buffers(batches, expand * k):
            if len(buffer) < expand * k and not remainder:
                break
            shape = buffer.shape[1:]
            # Sums of many latents in float64: a running mean in float32 drifts.
            means.partial_fit(buffer.reshape(len(buffer), -1).astype(np.float64))
            fitted += len(buffer)
    if not fitted:
        raise ValueError(f"no buffer of {expand * k} latents was filled")
    centres = np.asarray(means.cluster_centers_, np.float32)
    return Clusters(centres.reshape(k, *shape), fitted)


def buffers(batches: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Yield the rows of ``batches`` in buffers of ``size``, the remainder last."""
    held: list[np.ndarray] = []
    count = 0
    for batch in batches:
        while len(batch):
            taken = batch[: size - count]
            held.append(taken)
            count += len(taken)
            batch = batch[len(taken) :]
            if count == size:
                yield np.concatenate(held)
                held, count = [], 0
    if count:
        yield np.concatenate(held)


def sizes(batches: Iterable[np.ndarray], centres: np.ndarray) -> np.ndarray:
    """Return the number of latents nearest to each centre, int64 [k]: the sizes of its cluster.

    Args:
      batches: latents, float [n, *latent] each.
      centres: [k, *latent].
    """
    flat = centres.reshape(len(centres), -1).astype(np.float64)
    found = np.zeros(len(centres), np.int64)
    for batch in batches:
        rows = batch.reshape(len(batch), -1).astype(np.float64)
        distance = (flat**2).sum(1) - 2 * rows @ flat.T
        found += np.bincount(distance.argmin(1), minlength=len(centres))
    return found


def weights(counts: np.ndarray, repeats: int) -> np.ndarray:
    """Return the weight of each image, float32 [classes k repeats], class-major.

        w_cj = k n_cj / sum_i n_ci

    so that the mean over a class is 1, and every class counts as without weights.

    Args:
      counts: sizes of the clusters, [classes, k].
      repeats: images of each prototype.
    """
    shares = counts / counts.sum(axis=1, keepdims=True)
    return np.repeat(shares * counts.shape[1], repeats, axis=1).ravel().astype(np.float32)
