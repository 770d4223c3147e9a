"""Single images and arrays of images: decoding, resizing, checking."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from jdd.data.sources import depth, png
from jdd.errors import BadInput

# Raised when decoding changes (docs/data.md), so that cached pixels are decoded again.
RULES = 2
SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".webp", ".gif"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".tga", ".ico"),
    ".qoi",
)
# Pillow's format names. The depth of any other format is unknown before decoding.
_FORMATS = (
    *("PNG", "JPEG", "MPO", "BMP", "DIB", "WEBP", "GIF", "TIFF", "PPM", "JPEG2000", "AVIF", "TGA"),
    *("ICO", "QOI"),
)
_PICTURES = (  # suffixes of pictures that are not read
    *(".heic", ".heif", ".hif", ".jxl", ".jxr", ".svg", ".psd", ".xcf", ".eps", ".exr", ".hdr"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".srw", ".pef"),
    *(".dcm", ".nii", ".fits", ".pcx", ".ras", ".sgi", ".pfm", ".pam", ".jpx", ".npy"),
)
_CLEAR = ("LA", "PA", "RGBA", "La", "RGBa")  # Pillow's modes with an alpha channel
_DEEP = {"I": 32, "F": 32, "I;16": 16}  # Pillow's modes of more than 8 bits, which it would clip
_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, KeyError, AttributeError),
    *(RuntimeError, OverflowError, struct.error, zlib.error),
)
_DARK = 32  # of 255: values that all lie below are often 0 and 1, or grey levels of 4 or 5 bits
ROUNDING = 1e-3  # a quarter of a level of 8 bits: how far floats may lie outside 0 to 1

# What happened to an image when it was decoded: bits of ``Decoded.seen``.
GREY, CLEAR, TURNED, FRAMES, DARK = 1, 2, 4, 8, 16


class Decoded(NamedTuple):
    """One image: uint8 [h, w, c], whether its file was grey, and whether it was a JPEG.

    ``seen``: bits of GREY, CLEAR (transparent pixels were put on white), TURNED (by its EXIF
    orientation), FRAMES (more than the first), DARK. ``size``: (w, h) before it was resized.
    """

    array: np.ndarray
    grey: bool
    jpeg: bool
    seen: int = 0
    size: tuple[int, int] = (0, 0)


def decode(data: bytes, where: str, channels: int | None, size: int) -> Decoded:
    """Decode one image file by the rules of docs/data.md; all pictures are read by this function.

    Args:
      data: the bytes of the file.
      where: its name, for errors.
      channels: 1 or 3 to convert to; None: grey images stay grey, all others become RGB.
      size: the side to resize to in pixels (bilinear), 0 for the stored size.

    Raises:
      BadInput: the bytes are not a complete image of 8 bits per channel.
    """
    from PIL import Image

    bits = depth.stated(data)
    if bits > 8:
        raise _too_deep(where, bits)
    try:
        image: Any = Image.open(io.BytesIO(data))
        if image.format not in _FORMATS:
            raise BadInput(where, f"a file of format {image.format}", _CONVERT)
        frames = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        # Pillow rotates a TIFF while loading it and does not record that.
        turn = _orientation(image) if image.format == "TIFF" else 1
        image.load()
        if image.format == "PNG" and not png.whole(data):
            raise ValueError("a checksum of its content does not fit")
    except (*_ERRORS, Image.DecompressionBombError) as error:
        raise _unreadable(data, where, error) from None
    if image.mode.split(";")[0] in _DEEP:
        raise _too_deep(where, _DEEP.get(image.mode, 16))
    jpeg, grey = image.format in ("JPEG", "MPO"), image.mode in ("1", "L", "LA", "La")
    left = _orientation(image)
    mode = {1: "L", 3: "RGB"}.get(channels or (1 if grey else 3), "RGB")
    try:
        on_white = _on_white(image, data)
        clear = on_white is not None
        image = image if on_white is None else on_white
        if image.mode != mode:
            image = image.convert(mode)
    except (ValueError, TypeError, ImportError):  # such as LAB, without Little CMS
        raise BadInput(where, f"an image of mode {image.mode}", _CONVERT) from None
    if left in _TURNS:
        image = image.transpose(Image.Transpose[_TURNS[left]])
    found = image.size
    if size and found != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    array = np.asarray(image)
    seen = GREY * grey | CLEAR * clear | FRAMES * frames | DARK * bool(array.max() < _DARK)
    seen |= TURNED * (turn in _TURNS or left in _TURNS)
    return Decoded(array if array.ndim == 3 else array[..., None], grey, jpeg, seen, found)


_CONVERT = "convert it to .png or .jpg"
_TAGS = {"exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp"}
_TURNS = {  # EXIF orientations, and the operation that turns the stored rows upright
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


def _orientation(image: Any) -> Any:
    """Return the EXIF orientation; 1 (as stored) if it is missing or damaged."""
    if image.format != "TIFF" and not _TAGS & image.info.keys():
        return 1  # without a look-up, which costs as much as decoding a small image
    try:
        found = image.getexif().get(0x0112, 1)
    except _ERRORS:
        return 1
    return found if isinstance(found, int) else 1


def _on_white(image: Any, data: bytes) -> Any:
    """Return an image with transparent pixels composed on white, None if it has none.

    A channel c of opacity a (0 to 255) becomes (c a + 255 (255 - a)) / 255, rounded.
    """
    from PIL import Image

    key = image.info.get("transparency")
    palette = getattr(image.palette, "mode", "") if image.mode == "P" else ""
    if image.mode in ("1", "L") and isinstance(key, int):
        # Pillow scales grey of 2 and 4 bits to 8, and leaves the transparent level as it was.
        bits = data[24] if image.format == "PNG" else 8
        key = 255 * bool(key) if image.mode == "1" else key * 255 // (2**bits - 1)
        values = np.asarray(image.convert("L"))[..., None]
        alpha = np.where(values == key, 0, 255)
    elif key is not None or palette.endswith("A") or image.mode in _CLEAR:
        full = np.asarray(image.convert("LA" if image.mode in ("LA", "La") else "RGBA"))
        values, alpha = full[..., :-1], full[..., -1:]
    else:
        return None
    if alpha.min() == 255:
        return None
    opaque = alpha.astype(np.uint32)
    shown = ((values * opaque + 255 * (255 - opaque) + 127) // 255).astype(np.uint8)
    return Image.fromarray(shown[..., 0] if shown.shape[2] == 1 else shown)


def _too_deep(where: str, bits: int) -> BadInput:
    # The white value of 16 bits is not certain: scanners and cameras use 10, 12 or 14 of them.
    return BadInput(
        where,
        f"image of {bits} bits a channel",
        "save it with 8 bits a channel, scaled so that white is 255",
    )


def _unreadable(data: bytes, where: str, error: Exception) -> BadInput:
    from PIL import UnidentifiedImageError, features

    if isinstance(error, BadInput):
        return error
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    kinds = {
        "avif": ("an AVIF image", brand in (b"avif", b"avis")),
        "webp": ("a WebP image", data[:4] == b"RIFF" and data[8:12] == b"WEBP"),
        "jpg_2000": ("a JPEG 2000 image", data[4:8] == b"jP  " or data[:2] == b"\xff\x4f"),
    }
    for codec, (what, is_one) in kinds.items():
        if is_one and not features.check(codec):
            found = f"{what}, which the installed Pillow does not read"
            return BadInput(where, found, f"pip install -U pillow, or {_CONVERT}")
    if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1"):
        return BadInput(where, "a HEIC image, which Pillow does not read", _CONVERT)
    if isinstance(error, UnidentifiedImageError):
        reason = "not an image" if data else "empty file"
    else:
        reason = f"damaged image ({error})"
    return BadInput(where, reason, "replace or remove this file")


def unread(names: Iterable[str]) -> str:
    """Describe the files with suffixes of unsupported picture formats, "" if there are none:
    ``12 files end in .heic, which is not read; convert them to .png or .jpg``.
    """
    endings = (os.path.splitext(name)[1].lower() for name in names)
    counts = sorted(Counter(end for end in endings if end in _PICTURES).items())
    if not counts:
        return ""
    one, alone = sum(n for _, n in counts) == 1, len(counts) == 1
    (end, count), *more = counts
    listed = f"{count} file{'s end' if count > 1 else ' ends'} in {end}"
    listed += "".join(f", {n} in {other}" for other, n in more)
    return (
        f"{listed}, which {'is' if alone else 'are'} not read; "
        f"convert {'it' if one else 'them'} to .png or .jpg"
    )


def notes(seen: np.ndarray, sizes: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    """Return the notes for the user on decoded images.

    Args:
      seen: uint8 [n], ``Decoded.seen``.
      sizes: [n, 2], ``Decoded.size``.
      shape: (h, w, c) of the images made from them.
    """
    count, lines = len(seen), []
    for bit, words in (
        (GREY if shape[2] == 3 else 0, "are grey and were made RGB"),
        (CLEAR, "have transparent pixels: shown on white"),
        (TURNED, "were turned upright, as their EXIF orientation says"),
        (FRAMES, "have several frames or pages: the first one is read"),
    ):
        if n := int((seen & bit > 0).sum()):
            lines.append(f"{n} of {count} images {words}")
    odd = (sizes[:, 0] != sizes[:, 1]) & (sizes != (shape[1], shape[0])).any(axis=1)
    if odd.any():
        w, h = sizes[odd][0]
        such = "" if (sizes[odd] == (w, h)).all() else "such as "
        lines.append(f"{odd.sum()} of {count} images are not square ({such}{w}x{h}): {_to(shape)}")
    if count and (seen & DARK > 0).all():
        lines.append(_dark(f"all {count} images are dark: no value", _DARK - 1, 255))
    return lines


def _to(shape: tuple[int, ...]) -> str:
    return f"squeezed to {shape[1]}x{shape[0]}, the aspect ratio is not preserved"


def _dark(what: str, high: float, white: float) -> str:
    return (
        f"{what} is above {high:.4g}, and {white:g} is white; "
        f"where white is another value, multiply by {white:g} / white"
    )


def squeezed(shape: tuple[int, ...], size: int) -> list[str]:
    """Return the note on an array of images [n, h, w, c] that is resized to a side ``size``."""
    h, w = shape[1:3]
    return [f"images are {w}x{h}: {_to((size, size))}"] if size and h != w else []


def dark(high: float, white: float, name: str) -> list[str]:
    """Return the note on an array whose largest value ``high`` is nearly black.

    Examples: masks of 0 and 1, grey levels of 4 bits, floats that were divided twice.
    """
    return [_dark(f"{name}: no value", high, white)] if high < white * _DARK / 256 else []


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


def validate_images(images: np.ndarray, where: str) -> np.ndarray:
    """Validate user images and return them as uint8 or float32 [n, h, w, c].

    Raises:
      BadInput: another rank or channel count, no images, NaN, or values outside the range by more
        than ``ROUNDING``; smaller excesses are clipped.
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
        return _validate_floats(images, where)
    if images.dtype.kind in "iu":
        low, high = int(images.min()), int(images.max())
        if low < 0 or high > 255:
            raise BadInput(where, f"values from {low} to {high}", "integer pixels are 0 to 255")
        return images.astype(np.uint8)
    mask = "; of a mask: .astype('float32')" if images.dtype == bool else ""
    allowed = f"pixels are integers 0 to 255 or floats 0.0 to 1.0{mask}"
    raise BadInput(where, f"dtype {images.dtype}", allowed)


def _validate_floats(images: np.ndarray, where: str) -> np.ndarray:
    bad = sum(int((~np.isfinite(image)).sum()) for image in images)
    if bad:
        raise BadInput(where, f"{bad} pixels are NaN or infinite", "pixels are finite numbers")
    low, high = float(images.min()), float(images.max())
    if low >= 0 and high <= 1:
        return images.astype(np.float32, copy=False)
    if low < -ROUNDING or high > 1 + ROUNDING:
        remedy = "divide by 255, or store uint8"
        if low < -ROUNDING:
            remedy = "undo the normalisation: images * std + mean"
        elif high < 1.5:
            remedy = "after a resize: numpy.clip(images, 0, 1)"
        found = f"float pixels from {low:.7g} to {high:.7g}"
        raise BadInput(where, found, f"floats are 0.0 to 1.0, to within {ROUNDING:g} ({remedy})")
    return np.clip(images, 0, 1).astype(np.float32, copy=False)


def validate_labels(labels: np.ndarray, count: int, classes: int | None, where: str) -> np.ndarray:
    """Return user labels as int32 [n].

    Args:
      labels: [n] or [n, 1], whole numbers.
      count: the number of images n.
      classes: the number of classes, None to derive it from the labels.
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


def validate_classes(labels: np.ndarray, class_names: tuple[str, ...], where: str) -> None:
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
