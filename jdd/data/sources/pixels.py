"""Single images and arrays of images: decoding, resizing, checking."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np

from jdd.errors import BadInput

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm")
_DEEP = ("I", "F")  # Pillow's modes of more than 8 bits; converting them would clip


class Decoded(NamedTuple):
    """One image: uint8 [h, w, c], whether its file was grey, and whether it was a JPEG."""

    array: np.ndarray
    grey: bool
    jpeg: bool


def decode(data: bytes, where: str, channels: int | None, size: int) -> Decoded:
    """Decode one image file.

    Args:
      data: the bytes of the file.
      where: its name, for errors.
      channels: 1 or 3 to convert to, None to keep grey images grey and make all others RGB.
      size: the side to resize to (bilinear), 0 to keep the size.

    Raises:
      BadInput: the bytes are not a whole image of 8 bits a channel.
    """
    from PIL import Image

    try:
        image: Any = Image.open(io.BytesIO(data))
        image.load()
    except (
        *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError),
        *(struct.error, zlib.error, MemoryError, Image.DecompressionBombError),
    ) as error:
        if isinstance(error, Image.UnidentifiedImageError):
            reason = "not an image" if data else "empty file"
        else:
            reason = f"damaged image ({error})"
        raise BadInput(where, reason, "replace or remove this file") from None
    if image.mode.split(";")[0] in _DEEP:
        raise BadInput(
            where, f"image of more than 8 bits a channel (mode {image.mode})", "save it with 8 bits"
        )
    jpeg, grey = image.format == "JPEG", image.mode in ("1", "L", "LA")
    mode = {1: "L", 3: "RGB"}.get(channels or (1 if grey else 3), "RGB")
    if image.mode != mode:
        image = image.convert(mode)
    if size and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return Decoded(array if array.ndim == 3 else array[..., None], grey, jpeg)


def resize(images: np.ndarray, scale: float, size: int) -> np.ndarray:
    """Resize arrays of images bilinearly, with the antialiasing Pillow applies when shrinking.

    Args:
      images: [n, h, w, c], uint8 in [0, scale] or float32.
      scale: the value that means white.
      size: the new side.

    Returns:
      [n, size, size, c]: uint8 if the scale is 255, else float32 in [0, 1].
    """
    from PIL import Image

    bytes_wide = images.dtype == np.uint8 and scale == 255
    out = np.empty(
        (len(images), size, size, images.shape[-1]), np.uint8 if bytes_wide else np.float32
    )
    for i, image in enumerate(images):
        for channel in range(image.shape[-1]):
            plane = np.ascontiguousarray(image[..., channel])
            if not bytes_wide:
                plane = plane.astype(np.float32) / np.float32(scale)
            small = Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR)
            out[i, ..., channel] = np.asarray(small)
    return out


def scale_of(images: np.ndarray) -> float:
    """Return the white value of checked images: 255 for uint8, 1 for floats."""
    return 255.0 if images.dtype == np.uint8 else 1.0


def check_images(images: np.ndarray, where: str) -> np.ndarray:
    """Return user arrays as uint8 or float32 [n, h, w, c], or say what is wrong with them.

    Raises:
      BadInput: another rank or channel count, no images, NaN, or values outside the range.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise BadInput(
            where, f"shape {images.shape}", "images are (n, h, w) or (n, h, w, c) with c 1 or 3"
        )
    if images.shape[-1] not in (1, 3):
        first = "; transpose (0, 2, 3, 1) first" if images.shape[1] in (1, 3) else ""
        raise BadInput(
            where, f"shape {images.shape}", f"the last axis holds 1 or 3 channels{first}"
        )
    if not len(images):
        raise BadInput(where, "no images", "at least one image a class is needed")
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind == "f":
        return _check_floats(images, where)
    if images.dtype.kind in "iu":
        low, high = int(images.min()), int(images.max())
        if low < 0 or high > 255:
            raise BadInput(where, f"values from {low} to {high}", "integer pixels are 0 to 255")
        return images.astype(np.uint8)
    raise BadInput(
        where, f"dtype {images.dtype}", "pixels are integers 0 to 255 or floats 0.0 to 1.0"
    )


def _check_floats(images: np.ndarray, where: str) -> np.ndarray:
    bad = sum(int((~np.isfinite(image)).sum()) for image in images)
    if bad:
        raise BadInput(where, f"{bad} pixels are NaN or infinite", "pixels are finite numbers")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise BadInput(
            where,
            f"float pixels from {low:.4g} to {high:.4g}",
            "floats are 0.0 to 1.0 (divide by 255, or store uint8)",
        )
    return images.astype(np.float32, copy=False)


def check_labels(labels: np.ndarray, count: int, classes: int | None, where: str) -> np.ndarray:
    """Return user labels as int32 [n].

    Args:
      labels: [n] or [n, 1], whole numbers.
      count: the number of images n.
      classes: the number of classes, None if labels decide it.
      where: the name of the array, for errors.

    Raises:
      BadInput: another length, fractions, or labels outside 0..classes-1.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or len(labels) != count:
        raise BadInput(where, f"shape {labels.shape}", f"one label an image: ({count},)")
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels % 1 == 0).all():
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iu":
        kind = "fractions or NaN" if labels.dtype.kind == "f" else f"dtype {labels.dtype}"
        raise BadInput(where, kind, "labels are whole numbers from 0")
    top = classes if classes is not None else count
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= top:
        bound = f"0 to {top - 1}" if classes is not None else "0 to the number of classes less 1"
        raise BadInput(where, f"labels from {low} to {high}", f"allowed are {bound}")
    return labels.astype(np.int32)


def check_classes(labels: np.ndarray, class_names: tuple[str, ...], where: str) -> None:
    """Refuse a class without a training image, and a set of one class.

    Raises:
      BadInput: naming the first empty class.
    """
    if len(class_names) < 2:
        raise BadInput(where, f"{len(class_names)} class", "at least 2 classes are needed")
    counts = np.bincount(labels, minlength=len(class_names))
    if not counts.all():
        empty = int(np.argmin(counts > 0))
        named = f" ({class_names[empty]})" if class_names[empty] != str(empty) else ""
        raise BadInput(
            where, f"class {empty}{named} has no images", "each class needs at least one"
        )
