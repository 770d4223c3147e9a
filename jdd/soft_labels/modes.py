"""Label modes: what a store holds per view and per image.

``views``   the teachers' label of each view, in one of the forms of ``codec.py``;
``static``  one label per image, of the whole image: logits, float16;
``map``     one label map per image (``maps.py``), its k largest logits at each place;
``online``  no labels: the teachers run in the student's step, on its views.

Views are stored in every mode, so that students of all modes train on equal pixels.

Source: FKD (Shen & Xing, ECCV 2022) for views; ReLabel (Yun et al., CVPR 2021) for maps.
"""

from __future__ import annotations

import numpy as np

from jdd.errors import BadInput
from jdd.soft_labels import codec

MODES = ("views", "static", "map", "online")
Layout = dict[str, tuple[tuple[int, ...], np.dtype]]


def validate(
    mode: str,
    form: str,
    classes: int,
    k: int = 0,
    temperature: float = 1.0,
    places: tuple[int, ...] = (),
) -> None:
    """Refuse invalid settings of labels; ``places`` is the size (h, w) of a label map.

    Raises:
      BadInput: an unknown mode; as ``codec.validate``; a form other than logits in modes other than
        views; of maps, k outside 1 .. C or no size.
    """
    if mode not in MODES:
        raise BadInput("mode of the labels", repr(mode), f"one of {', '.join(MODES)}")
    if mode != "views" and form != "logits":
        raise BadInput("form of the labels", f"{form} in mode {mode}", "logits, or the mode views")
    codec.validate(form, classes, k, temperature)
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
    """Return the bytes of the arrays of a whole store, without the files' headers.

        E S b (4 + view_bytes + [mode views] the label's) + n (the image's)

    with 2 C per image in mode static and h w k (2 + the bytes of an index) in mode map; arguments
    as in ``codec.expected_bytes``.
    """
    each = of_image(mode, classes, k, places).values()
    own = sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in each)
    view_form = form if mode == "views" else None
    views = codec.expected_bytes(images, epochs, classes, view_form, k, view_bytes, batch)
    return views + images * own
