"""Quantisation of images to 8 bits per channel, optionally with JPEG's losses."""

from __future__ import annotations

import io

import numpy as np

from jdd.data.transform import Transform
from jdd.errors import BadInput

WAYS = ("none", "round", "truncate", "jpeg")
QUALITY = 75  # Pillow's default, which the published sets were saved with


def quantised(images: np.ndarray, transform: Transform, how: str) -> np.ndarray:
    """Convert images ``[n, h, w, c]`` in a net's input space to 8-bit pixels and back.

    Pixels are clipped to [0, 1] and become p = round(255 x) or, with 'truncate' and 'jpeg',
    floor(255 x); 'jpeg' then encodes and decodes each image at quality 75. 'none' changes nothing.

    Raises:
      BadInput: ``how`` is not one of ``WAYS``.
    """
    if how not in WAYS:
        raise BadInput("config.quantise", repr(how), f"one of {', '.join(WAYS)}")
    if how == "none":
        return np.asarray(images, np.float32)
    exact = 255 * np.clip(transform.inverse(np.asarray(images)), 0, 1)
    pixels = (np.round(exact) if how == "round" else np.floor(exact)).astype(np.uint8)
    if how == "jpeg":
        pixels = np.stack([_through_jpeg(image) for image in pixels])
    return transform.forward(pixels, 255.0)


def _through_jpeg(image: np.ndarray) -> np.ndarray:
    from PIL import Image

    grey = image.shape[-1] == 1
    with io.BytesIO() as file:
        Image.fromarray(image[..., 0] if grey else image).save(file, "JPEG", quality=QUALITY)
        with Image.open(io.BytesIO(file.getvalue())) as found:
            back = np.asarray(found)
    return back[..., None] if grey else back
