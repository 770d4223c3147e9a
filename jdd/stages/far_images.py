"""Images far from any picture: finite pixels, but of no use."""

from __future__ import annotations

import numpy as np

from jdd.data.transform import Transform

MOST = 0.5  # share of far pixels above which images are far


def far(images: np.ndarray, transform: Transform, distance: float) -> bool:
    """Return whether most pixels of images are further than ``distance`` from [0, 1].

    Args:
      images: in the nets' input space, ``[n, h, w, c]``.
      transform: of the real images.
      distance: in units of the range from black to white.
    """
    pixels = images * np.asarray(transform.std) + np.asarray(transform.mean)
    share = float(np.mean((pixels < -distance) | (pixels > 1 + distance)))
    return share > MOST
