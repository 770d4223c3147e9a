"""Fitting a whitening by its kind, and whitenings that a set's file leaves out.

The matrix of 32 x 32 x 3 images has 38 MB, ten such images 0.1 MB. A file without the matrix names
the whitening in its recipe; the real training images determine the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

import numpy as np

from jdd.data.transform import (
    NAMES,
    Transform,
    fit_frepo_zca,
    fit_kip_zca,
    fit_zca,
    unfitted,
    whitening,
)
from jdd.errors import BadInput

# (images, scale, normalisation) -> mean, matrix, inverse and, of kip, the image's mean and length.
FITS: dict[str, Callable[..., tuple[np.ndarray, ...]]] = {
    "kornia": lambda images, scale, first: fit_zca(images, scale),
    "kip": lambda images, scale, first: fit_kip_zca(images, scale),
    "frepo": fit_frepo_zca,
}


class LeftOut(Transform):
    """A whitening of a known kind whose matrix is not in the set's file; maps no images."""

    __slots__ = ()

    def forward(self, pixels: np.ndarray, scale: float = 1.0) -> np.ndarray:
        """Refuse to map pixels.

        Raises:
          BadInput: always.
        """
        self._refuse()

    def inverse(self, x: np.ndarray) -> np.ndarray:
        """Refuse to map a net's inputs.

        Raises:
          BadInput: always.
        """
        self._refuse()

    def _refuse(self) -> NoReturn:
        allowed = (
            "fit it to the real images: --mode=evaluate --set=... writes the set with it into its "
            "--workdir, which --mode=export reads; in Python: dset.fitted(pixels)"
        )
        raise BadInput(f"the whitening ({self.kind}) of the set", "left out of its file", allowed)


def left_out(kind: str, shape: tuple[int, ...], first: Transform) -> LeftOut:
    """Return a whitening of ``kind`` without its matrix, for images of ``shape`` [h, w, c].

    Args:
      first: mean and std of the set; those of 'frepo' come before its whitening.
    """
    return LeftOut(*unfitted(kind, shape, first))


def kind_of(name: str) -> str:
    """Return the kind of the whitening that a recipe names; 'none' for an unknown name."""
    return next((kind for kind, own in NAMES.items() if own == name), "none")


def fit(transform: Transform, pixels: np.ndarray, scale: float = 1.0) -> Transform:
    """Return a whitening of the kind of ``transform``, fitted to real training images.

    Args:
      pixels: [n, h, w, c], from 0 to ``scale``.
    """
    mean, matrix, inverse, *image = FITS[transform.kind](pixels, scale, transform)
    first = transform if transform.kind == "frepo" else None
    return whitening(mean, matrix, inverse, pixels.shape[-1], image[0] if image else None, first)
