"""How students are labelled: what a store holds of each view, and what of each image.

``views``   what the teachers said of each view, in one of the forms of ``forms.py``;
``static``  one label an image, what they said of the whole of it: logits, float16;
``map``     one label map an image (``maps.py``), its k largest logits at each place;
``online``  nothing: the teachers run in the student's step, on the views it is shown.

Views are stored in every mode, so that the students of all see the same pixels.

Source: FKD (Shen & Xing, ECCV 2022) for views; ReLabel (Yun et al., CVPR 2021) for maps.
"""

from __future__ import annotations

import numpy as np

from jdd.errors import BadInput
from jdd.soft_labels import codec

MODES = ("views", "static", "map", "online")
Layout = dict[str, tuple[tuple[int, ...], np.dtype]]


def check(
    mode: str,
    form: str,
    classes: int,
    k: int = 0,
    temperature: float = 1.0,
    places: tuple[int, ...] = (),
) -> None:
    """Refuse labels that cannot be made; ``places`` are a label map's (h, w).

    Raises:
      BadInput: an unknown mode; as ``forms.check``; a form but logits in other modes than views; of
        maps, k outside 1 .. C or no size.
    """
    if mode not in MODES:
        raise BadInput("mode of the labels", repr(mode), f"one of {', '.join(MODES)}")
    if mode != "views" and form != "logits":
        raise BadInput("form of the labels", f"{form} in mode {mode}", "logits, or the mode views")
    codec.check(form, classes, k, temperature)
    if mode == "map" and not 1 <= k <= classes:
        raise BadInput("k of the label maps", str(k), f"1 to {classes}")
    if mode == "map" and (len(places) != 2 or min(places) < 1):
        raise BadInput("size of the label maps", str(list(places)), "height and width in places")


def of_view(mode: str, form: str, classes: int, k: int = 0) -> Layout:
    """Return the arrays of one view's label: name -> (shape, dtype)."""
    return codec.layout(form, classes, k) if mode == "views" else {}


def of_image(mode: str, classes: int, k: int = 0, places: tuple[int, ...] = ()) -> Layout:
    """Return the arrays of one image's label: name -> (shape, dtype)."""
    if mode == "static":
        return {"logits": ((classes,), np.dtype(np.float16))}
    if mode == "map":
        shape = (k, *places)
        return {
            "values": (shape, np.dtype(np.float16)),
            "indices": (shape, codec.index_dtype(classes)),
        }
    return {}


def expected_bytes(
    mode: str,
    images: int,
    epochs: int,
    classes: int,
    form: str,
    k: int = 0,
    view_bytes: int = 0,
    batch: int = 0,
    places: tuple[int, ...] = (),
) -> int:
    """Return the bytes of the arrays of a whole store, without the files' heads.

        E S b (4 + view_bytes + [mode views] the label's) + n (the image's)

    with 2 C an image in mode static and h w k (2 + the bytes of an index) in mode map; arguments
    as in ``forms.expected_bytes``.
    """
    each = of_image(mode, classes, k, places).values()
    own = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in each)
    said = form if mode == "views" else None
    views = codec.expected_bytes(images, epochs, classes, said, k, view_bytes, batch)
    return views + images * own
