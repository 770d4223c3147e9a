"""Maps from pixels in [0, 1] to a net's input space and back: normalisation or ZCA whitening.

Three published whitenings are kinds of ``config.data.zca``; they are not interchangeable:

``kornia``  pixels centred by their mean over the training images, eigenvalues + 0.1 (MTT's).
``kip``     each image centred and scaled to length 1 by itself, eigenvalues + 0.1 of their mean
            (KIP's, RaT-BPTT's).
``frepo``   channels normalised first, then centred by the mean image, eigenvalues + 0.1 of their
            mean (FRePo's).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from jdd import memory
from jdd.errors import BadInput

ZCA_EPS = 0.1
MOST = 0.5  # share of a set's values beyond a distance (``Transform.beyond``) that is most of them
KINDS = ("none", "kornia", "kip", "frepo")
# Their names in a set's recipe.
NAMES = {"none": "none"} | {kind: f"{kind}_zca eps={ZCA_EPS}" for kind in KINDS[1:]}
_ROWS = 2048  # images per chunk: bounds the temporaries, large enough for a full-speed product
_NUMBERS = 1 << 25  # floats per chunk, at most: 222 images of 224 x 224 x 3


class Transform(NamedTuple):
    """Map from pixels to a net's input space, d = h * w * c; affine except with ``zca_image``.

    ``mean`` (c,) and ``std`` (c,) normalise; whitening then applies ``zca_mean`` (d,) and the
    symmetric ``zca_matrix`` (d, d) to the flattened image. Only kind 'frepo' uses both; the other
    whitenings have mean 0 and std 1. ``zca_inverse`` is the inverse of the matrix; None: computed
    on demand.

    With ``zca_image`` (2,), kind 'kip', every image is first centred by its own mean m and divided
    by its own length r = |p - m|. It holds the mean m and mean r of the training images, which
    ``inverse`` uses for every image: pictures have the contrast and brightness of an average image.
    """

    mean: np.ndarray
    std: np.ndarray
    zca_mean: np.ndarray | None = None
    zca_matrix: np.ndarray | None = None
    zca_inverse: np.ndarray | None = None
    zca_image: np.ndarray | None = None

    @property
    def whitens(self) -> bool:
        """True if images are whitened rather than normalised."""
        return self.zca_matrix is not None

    @property
    def fitted(self) -> bool:
        """True unless the matrix is the placeholder of ``unfitted``."""
        return self.zca_matrix is None or any(self.zca_matrix.strides)

    @property
    def kind(self) -> str:
        """One of ``KINDS``."""
        if self.zca_matrix is None:
            return "none"
        if self.zca_image is not None:
            return "kip"
        return "frepo" if np.any(self.mean != 0) or np.any(self.std != 1) else "kornia"

    def forward(self, pixels: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Map pixels to a net's input space.

            x = (p - mean) / std        or, whitened,   x = (p - mu) W,   p = pixels / scale
            or, whitened as 'kip',      x = (p - m) / r W
            or, whitened as 'frepo',    x = ((p - mean) / std - mu) W

        Args:
          pixels: [n, h, w, c], any real dtype, in [0, scale].
          scale: the value that means white: 1 for floats, 255 for uint8.

        Returns:
          float32 [n, h, w, c]; computed in chunks of images, so that uint8 input never needs a
          second float copy of the whole set.

        Raises:
          ValueError: the images have another size than the whitening matrix.
        """
        out = np.empty(pixels.shape, np.float32)
        for at in chunks(pixels):
            part = pixels[at].astype(np.float32)
            if scale != 1:
                part /= np.float32(scale)
            out[at] = self._forward(part)
        return out

    def _forward(self, part: np.ndarray) -> np.ndarray:
        part -= self.mean.astype(np.float32)
        part /= self.std.astype(np.float32)
        if self.zca_matrix is None or self.zca_mean is None:
            return part
        rows = self._rows(part)
        if self.zca_image is not None:
            rows = own_scale(rows)
        rows = rows - self.zca_mean.astype(np.float32)
        return (rows @ self.zca_matrix).reshape(part.shape)

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Map a net's inputs back to pixels: the inverse of ``forward``, not clipped.

        Exact except for 'kip', which restores an image only up to its own mean and length;
        ``forward`` is invariant to both.

        Args:
          x: [n, h, w, c] in the net's input space.

        Returns:
          float32 [n, h, w, c]; in [0, 1] if x came from an image, otherwise unbounded.

        Raises:
          ValueError: the images have another size than the whitening matrix.
        """
        x = np.asarray(x, np.float32)
        if self.zca_matrix is not None and self.zca_mean is not None:
            back = self.zca_inverse
            if back is None:
                back = np.linalg.inv(self.zca_matrix.astype(np.float64)).astype(np.float32)
            rows = self._rows(x) @ back + self.zca_mean.astype(np.float32)
            if self.zca_image is not None:
                mean, length = self.zca_image.astype(np.float32)
                rows = rows * length + mean
            x = rows.reshape(x.shape)
        return x * self.std.astype(np.float32) + self.mean.astype(np.float32)

    def beyond(self, x: np.ndarray, distance: float) -> float:
        """Return the share of pixel values further than ``distance`` from [0, 1].

        Args:
          x: [n, h, w, c] in the net's input space.
          distance: in units of the range from black to white.
        """
        pixels = self.inverse(x)
        return float(np.mean((pixels < -distance) | (pixels > 1 + distance)))

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
    mean: np.ndarray,
    matrix: np.ndarray,
    inverse: np.ndarray | None,
    channels: int,
    image: np.ndarray | None = None,
    first: Transform | None = None,
) -> Transform:
    """Return the ZCA transform, applied after the normalisation ``first`` if given ('frepo').

    Otherwise mean is 0 and std is 1.
    """
    if first is None:
        first = Transform(np.zeros(channels, np.float32), np.ones(channels, np.float32))
    return Transform(first.mean, first.std, mean, matrix, inverse, image)


def unfitted(kind: str, shape: tuple[int, ...], first: Transform | None) -> Transform:
    """Return a whitening of ``kind`` whose zeros take no memory, for estimates of cost."""
    size = math.prod(shape)
    mean, matrix, image = (np.broadcast_to(np.float32(0), s) for s in (size, (size, size), 2))
    own = image if kind == "kip" else None
    return whitening(mean, matrix, matrix, shape[-1], own, first if kind == "frepo" else None)


def whitening_kind(value: bool | str) -> str:
    """Return one of ``KINDS``; older configs and callers pass true or false.

    Raises:
      BadInput: anything else.
    """
    kind = ("kornia" if value else "none") if isinstance(value, bool) else value
    if kind not in KINDS:
        raise BadInput("config.data.zca", repr(value), f"one of {', '.join(KINDS)}")
    return kind


# Bytes per entry of the d x d matrix: the covariance, LAPACK's copy of it and its two workspaces,
# and the eigenvectors, all float64; then the matrix and its inverse, float32.
FIT_BYTES, HELD_BYTES = 40, 8


def validate_whitening(kind: str, shape: tuple[int, ...], cached: bool = False) -> None:
    """Refuse a whitening of images of ``shape`` whose matrices do not fit into memory.

    Args:
      cached: the matrix may be in the cache already and then needs no fit.

    Raises:
      BadInput: with the size of the matrix, and the largest images that fit.
    """
    if kind == "none":
        return
    size, each = math.prod(shape), HELD_BYTES if cached else FIT_BYTES
    side = int((0.8 * memory.available() / FIT_BYTES) ** 0.25 / shape[-1] ** 0.5)
    smaller = f"--config.data.size={side} or less" if side >= 4 else "a smaller --config.data.size"
    memory.need(
        each * size**2,
        "config.data.zca",
        f"{kind} of {'x'.join(map(str, shape))} images needs a matrix of"
        + ("" if cached else f" {memory.size(8 * size**2)}, and to fit it"),
        f"--config.data.zca=none, or {smaller}",
    )


def own_scale(rows: np.ndarray) -> np.ndarray:
    """Centre each row by its own mean and divide it by its own length; a constant row gives 0."""
    rows = rows - rows.mean(1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(length, np.asarray(1e-8, rows.dtype))


def chunks(images: Any) -> Iterator[slice]:
    """Yield slices of images ``[n, ...]`` that bound the memory of one chunk."""
    rows = max(1, min(_ROWS, _NUMBERS // max(1, math.prod(images.shape[1:]))))
    for start in range(0, len(images), rows):
        yield slice(start, start + rows)


def channel_stats(images: Any, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean and population standard deviation per channel of images / scale.

    Args:
      images: [n, h, w, c], an array or ``Streamed``; sums run in float64 over chunks of images.
      scale: the value that means white.

    Returns:
      Two float32 arrays [c].
    """
    channels = images.shape[-1]
    count, total = images.size // channels, np.zeros(channels)
    for at in chunks(images):
        total += images[at].reshape(-1, channels).sum(0, dtype=np.float64)
    mean, squares = total / count, np.zeros(channels)
    for at in chunks(images):
        part = images[at].reshape(-1, channels) - mean
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
    whitenings have relative ones and are not interchangeable with it. C and its eigenvectors are
    float64, since small variances are lost in float32 sums.

    Args:
      images: [n, h, w, c] training images, n >= 2, in [0, scale]; flattened in (h, w, c) order.
      scale: the value that means white.
      eps: the absolute regulariser.

    Returns:
      (mu [d], W [d, d], W^-1 [d, d]) in float32.

    Source: kornia's ZCAWhitening(eps=0.1, unbiased), as called by Cazenavette et al., Dataset
    Distillation by Matching Training Trajectories (CVPR 2022), section 4 and released code.
    """
    n, size = len(images), math.prod(images.shape[1:])
    mean = np.zeros(size)
    for at in chunks(images):
        mean += images[at].reshape(-1, size).sum(0, dtype=np.float64)
    mean /= n
    covariance = np.zeros((size, size))
    for at in chunks(images):
        part = images[at].reshape(-1, size).astype(np.float64)
        part -= mean
        part /= scale
        covariance += part.T @ part
    covariance /= max(n - 1, 1)
    variances, vectors = np.linalg.eigh(covariance)
    del covariance
    root = np.sqrt(np.maximum(variances, 0.0) + eps)  # rounding can leave variances just below 0
    matrix = ((vectors / root) @ vectors.T).astype(np.float32)
    inverse = ((vectors * root) @ vectors.T).astype(np.float32)
    return (mean / scale).astype(np.float32), matrix, inverse


def fit_kip_zca(
    images: np.ndarray, scale: float = 1.0, eps: float = ZCA_EPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Fit ZCA whitening as KIP and RaT-BPTT use it.

        q = (p - m) / |p - m|, m the image's own mean;  C = sum q^T q / n = U diag(s) U^T
        W = U diag(s + eps mean(s))^(-1/2) U^T

    q is not centred, and the regulariser is relative: it follows the scale of q.

    Args:
      images: [n, h, w, c] training images, in [0, scale]; flattened in (h, w, c) order.
      scale: the value that means white.
      eps: the relative regulariser.

    Returns:
      (zeros [d], W [d, d], W^-1 [d, d], [mean of m, mean of |p - m|]) in float32.

    Source: Nguyen et al., Dataset Distillation with Infinitely Wide Convolutional Networks (NeurIPS
    2021), appendix on data preprocessing.
    """
    n, size = len(images), math.prod(images.shape[1:])
    covariance, means, lengths = np.zeros((size, size)), 0.0, 0.0
    for at in chunks(images):
        part = images[at].reshape(-1, size).astype(np.float64) / scale
        own = own_scale(part)
        covariance += own.T @ own
        means += part.mean(1).sum()
        lengths += np.linalg.norm(part - part.mean(1, keepdims=True), axis=1).sum()
    covariance /= n
    variances, vectors = np.linalg.eigh(covariance)
    del covariance
    variances = np.maximum(variances, 0.0)
    root = np.sqrt(variances + eps * variances.mean())
    root = np.where(root > 0, root, 1.0)  # all images constant: nothing to whiten
    matrix = ((vectors / root) @ vectors.T).astype(np.float32)
    inverse = ((vectors * root) @ vectors.T).astype(np.float32)
    image = np.asarray([means / n, lengths / n], np.float32)
    return np.zeros(size, np.float32), matrix, inverse, image


def fit_frepo_zca(
    images: np.ndarray, scale: float, first: Transform, eps: float = ZCA_EPS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fit ZCA whitening as FRePo uses it, to images normalised per channel by ``first``.

        q = (p - mean) / std,  mu = mean of q,  C = sum (q - mu)^T (q - mu) / n
        C + eps tr(C) / d I = U diag(s) U^T,    W = U diag(s)^(-1/2) U^T

    With fewer images than pixels the d - n smallest s are set to 1: the images do not determine
    them.

    Args:
      images: [n, h, w, c] training images, in [0, scale]; flattened in (h, w, c) order.
      scale: the value that means white.
      first: the normalisation per channel.
      eps: the relative regulariser.

    Returns:
      (mu [d], W [d, d], W^-1 [d, d]) in float32.

    Source: FRePo (Zhou, Nezhadarya & Ba, NeurIPS 2022), its released code's preprocessing.
    """
    n, size = len(images), int(np.prod(images.shape[1:]))
    channels = images.shape[-1]
    shift = np.tile(first.mean.astype(np.float64), size // channels)
    unit = np.tile(first.std.astype(np.float64), size // channels)

    def rows(at: slice) -> np.ndarray:
        part = images[at].reshape(-1, size).astype(np.float64)
        return (part / scale - shift) / unit

    mean = sum(rows(at).sum(0) for at in chunks(images)) / n
    covariance = np.zeros((size, size))
    for at in chunks(images):
        part = rows(at) - mean
        covariance += part.T @ part
    covariance /= n
    variances, vectors = np.linalg.eigh(covariance)  # in rising order
    del covariance
    variances = np.maximum(variances, 0.0)
    variances = variances + eps * variances.mean()
    variances[: max(0, size - n)] = 1.0
    root = np.sqrt(np.where(variances > 0, variances, 1.0))  # all images alike
    matrix = ((vectors / root) @ vectors.T).astype(np.float32)
    inverse = ((vectors * root) @ vectors.T).astype(np.float32)
    return np.asarray(mean, np.float32), matrix, inverse
