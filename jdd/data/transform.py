"""From pixels in [0, 1] to a net's input and back: per-channel normalisation or ZCA whitening."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ZCA_EPS = 0.1
_ROWS = 2048  # images a chunk: bounds the temporaries, large enough for a full-speed product


class Transform(NamedTuple):
    """The affine map of a dataset, d = h * w * c.

    ``mean`` (c,) and ``std`` (c,) normalise; with whitening they are 0 and 1 and the flattened
    image goes through ``zca_mean`` (d,) and the symmetric ``zca_matrix`` (d, d) instead.
    ``zca_inverse`` is the matrix's inverse; None means it is computed when it is needed.
    """

    mean: np.ndarray
    std: np.ndarray
    zca_mean: np.ndarray | None = None
    zca_matrix: np.ndarray | None = None
    zca_inverse: np.ndarray | None = None

    @property
    def whitens(self) -> bool:
        """Whether images are whitened rather than normalised."""
        return self.zca_matrix is not None

    def forward(self, pixels: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Map pixels to a net's input space.

            x = (p - mean) / std        or, whitened,   x = (p - mu) W,   p = pixels / scale

        Args:
          pixels: [n, h, w, c], any real dtype, in [0, scale].
          scale: the value that means white: 1 for floats, 255 for uint8.

        Returns:
          float32 [n, h, w, c]; worked out in chunks of images, so uint8 input never becomes a
          second float copy of the whole set.

        Raises:
          ValueError: the images are of another size than the whitening matrix.
        """
        out = np.empty(pixels.shape, np.float32)
        for start in range(0, len(pixels), _ROWS):
            part = pixels[start : start + _ROWS].astype(np.float32)
            if scale != 1:
                part /= np.float32(scale)
            out[start : start + _ROWS] = self._forward(part)
        return out

    def _forward(self, part: np.ndarray) -> np.ndarray:
        if self.zca_matrix is None or self.zca_mean is None:
            part -= self.mean.astype(np.float32)
            part /= self.std.astype(np.float32)
            return part
        rows = self._rows(part) - self.zca_mean.astype(np.float32)
        return (rows @ self.zca_matrix).reshape(part.shape)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Map a net's inputs back to pixels: the exact inverse of ``forward``, not clipped.

        Args:
          x: [n, h, w, c] in the net's input space.

        Returns:
          float32 [n, h, w, c]; in [0, 1] where x came from an image, beyond it where it did not.

        Raises:
          ValueError: the images are of another size than the whitening matrix.
        """
        x = np.asarray(x, np.float32)
        if self.zca_matrix is None or self.zca_mean is None:
            return x * self.std.astype(np.float32) + self.mean.astype(np.float32)
        back = self.zca_inverse
        if back is None:
            back = np.linalg.inv(self.zca_matrix.astype(np.float64)).astype(np.float32)
        return (self._rows(x) @ back + self.zca_mean.astype(np.float32)).reshape(x.shape)

    def _rows(self, images: np.ndarray) -> np.ndarray:
        rows = images.reshape(len(images), -1)
        if self.zca_mean is None or rows.shape[1] != self.zca_mean.size:
            raise ValueError(f"images of {images.shape[1:]} do not fit this whitening matrix")
        return rows


def normalisation(mean: np.ndarray, std: np.ndarray) -> Transform:
    """Return the per-channel transform; a constant channel (std 0) is only centred."""
    mean, std = np.asarray(mean, np.float32), np.asarray(std, np.float32)
    return Transform(mean, np.where(std > 1e-6, std, np.float32(1.0)))


def whitening(
    mean: np.ndarray, matrix: np.ndarray, inverse: np.ndarray | None, channels: int
) -> Transform:
    """Return the ZCA transform: mean and std are the identity, so nobody applies them twice."""
    return Transform(
        np.zeros(channels, np.float32), np.ones(channels, np.float32), mean, matrix, inverse
    )


def channel_stats(images: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and population standard deviation per channel of images / scale.

    Args:
      images: [n, h, w, c]; sums run in float64 over chunks of images.
      scale: the value that means white.

    Returns:
      Two float32 arrays [c].
    """
    channels = images.shape[-1]
    count, total = images.size // channels, np.zeros(channels)
    for start in range(0, len(images), _ROWS):
        total += images[start : start + _ROWS].reshape(-1, channels).sum(0, dtype=np.float64)
    mean, squares = total / count, np.zeros(channels)
    for start in range(0, len(images), _ROWS):
        part = images[start : start + _ROWS].reshape(-1, channels) - mean
        squares += np.einsum("nc,nc->c", part, part)
    std = np.sqrt(squares / count)
    return (mean / scale).astype(np.float32), (std / scale).astype(np.float32)


def fit_zca(
    images: np.ndarray, scale: float = 1.0, eps: float = ZCA_EPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit ZCA whitening as the trajectory-matching papers use it.

        mu = mean of p,  C = sum (p - mu)^T (p - mu) / (n - 1) = U diag(s) U^T
        W = U diag(s + eps)^(-1/2) U^T,      W^-1 = U diag(s + eps)^(1/2) U^T

    The regulariser is absolute, added to the variances of pixels p in [0, 1]; other published
    whitenings are relative and are not interchangeable with this one. C and its eigenvectors are
    float64, since small variances drown in float32 sums.

    Args:
      images: [n, h, w, c] training images, n >= 2, in [0, scale]; flattened in (h, w, c) order.
      scale: the value that means white.
      eps: the absolute regulariser.

    Returns:
      (mu [d], W [d, d], W^-1 [d, d]) in float32.

    Source: kornia's ZCAWhitening(eps=0.1, unbiased), as called by Cazenavette et al., Dataset
    Distillation by Matching Training Trajectories (CVPR 2022), section 4 and released code.
    """
    rows = images.reshape(len(images), -1)
    mean = np.zeros(rows.shape[1])
    for start in range(0, len(rows), _ROWS):
        mean += rows[start : start + _ROWS].sum(0, dtype=np.float64)
    mean /= len(rows)
    covariance = np.zeros((rows.shape[1], rows.shape[1]))
    for start in range(0, len(rows), _ROWS):
        part = rows[start : start + _ROWS].astype(np.float64)
        part -= mean
        part /= scale
        covariance += part.T @ part
    covariance /= max(len(rows) - 1, 1)
    variances, vectors = np.linalg.eigh(covariance)
    del covariance
    root = np.sqrt(np.maximum(variances, 0.0) + eps)  # rounding can leave variances just below 0
    matrix = ((vectors / root) @ vectors.T).astype(np.float32)
    inverse = ((vectors * root) @ vectors.T).astype(np.float32)
    return (mean / scale).astype(np.float32), matrix, inverse
