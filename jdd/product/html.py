"""Images as PNG bytes, and a set of images as HTML for notebooks."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from jdd.data.transform import Transform

SMALLEST = 64  # shorter side of a shown image, in screen pixels
CLASSES, EACH = 20, 10  # at most so many classes, and images of each, are shown


def pixels(images: np.ndarray, transform: Transform) -> np.ndarray:
    """Return images as uint8 [n, h, w, c]: un-whitened, un-normalised, clipped to [0, 1].

    A synthetic image may exceed [0, 1]; values outside cannot be shown.
    """
    found = np.asarray(transform.inverse(images))
    shown: np.ndarray = np.round(np.clip(found, 0.0, 1.0) * 255.0).astype(np.uint8)
    return shown


def picture(pixels: np.ndarray) -> Any:
    """Return one uint8 image [h, w, c] as a PIL image."""
    from PIL import Image

    if pixels.shape[-1] in (1, 3):
        return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    # Neither 1 nor 3 channels: the mean over channels still shows the shapes.
    return Image.fromarray(pixels.mean(axis=-1).astype(np.uint8))


def png(image: Any) -> bytes:
    """Return a PIL image as the bytes of a PNG file, pixel for pixel."""
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()


def gallery(
    images: np.ndarray, transform: Transform, of: np.ndarray, names: Sequence[str], caption: str
) -> str:
    """Return HTML with ``caption`` and the first images of the first classes, by class.

    Args:
      images: float32 [n, h, w, c] in the space of the nets.
      transform: of these images.
      of: the class of each image, int [n].
      names: of the classes; escaped.
      caption: plain text; escaped.
    """
    groups = [np.flatnonzero(of == c) for c in range(len(names))]
    shown = [(names[c], group[:EACH]) for c, group in enumerate(groups) if len(group)][:CLASSES]
    present, most = sum(map(bool, map(len, groups))), max(map(len, groups), default=0)
    left_out = []
    if present > len(shown):
        left_out.append(f"{len(shown)} of {present} classes")
    if most > EACH:
        left_out.append(f"at most {EACH} images of each")
    if not transform.fitted:  # which pixels they are is not known
        shown, left_out = [], ["no image, as the whitening is not in the file"]
    figures = "".join(_figure(name, images[group], transform) for name, group in shown)
    note = f"<div>Shown: {', '.join(left_out)}.</div>" if left_out else ""
    words = html.escape(caption).replace("\n", "<br>")
    return f"<div><div>{words}</div>{figures}{note}</div>"


def _figure(name: str, images: np.ndarray, transform: Transform) -> str:
    """Return the images of one class in a row, with its name below."""
    row = np.concatenate(list(pixels(images, transform)), axis=1)
    scale = max(1, -(-SMALLEST // min(images.shape[1:3])))
    data = base64.b64encode(png(picture(row))).decode("ascii")
    h, w = row.shape[:2]
    text = html.escape(str(name), quote=True)
    return (
        '<figure style="display:inline-block;margin:4px;text-align:center">'
        f'<img alt="{text}" width="{w * scale}" height="{h * scale}" '
        f'style="image-rendering:pixelated" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
