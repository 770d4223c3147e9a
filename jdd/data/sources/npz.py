"""A user's own arrays in one .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jdd.data.facts import Facts
from jdd.data.sources import pixels
from jdd.data.sources.raw import Raw
from jdd.errors import BadInput

# The documented names of (images, labels), the first found is taken.
NAMES = {
    "train": (("images", "x_train", "train_images"), ("labels", "y_train", "train_labels")),
    "val": (("x_val", "val_images"), ("y_val", "val_labels")),
    "test": (("x_test", "test_images"), ("y_test", "test_labels")),
}
_DAMAGE = (zipfile.BadZipFile, zlib.error)


def read(path: Path, facts: Facts | None) -> Raw:
    """Read images and labels of an .npz file.

    Arrays: ``images`` (or x_train, train_images) [n, h, w] or [n, h, w, c], uint8 or float in
    [0, 1]; ``labels`` (y_train, train_labels) [n]; optionally x_test/y_test (test_images/
    test_labels), x_val/y_val (val_images/val_labels) and ``class_names`` [C].

    Raises:
      BadInput: not an .npz, pickled objects, missing arrays, or contents that are out of range.
    """
    arrays = _load(path)
    if not any(name in arrays for name in NAMES["train"][0]):
        found = ", ".join(arrays) or "no arrays"
        raise BadInput(
            str(path),
            f"holds {found}",
            "needed are images (or x_train) and labels (or y_train); x_test, y_test, x_val, "
            "y_val and class_names may be there",
        )
    names = _class_names(arrays, facts, path)
    classes: int | None = len(names) if names else None
    splits = {}
    for split, (image_names, label_names) in NAMES.items():
        pair = _pair(arrays, image_names, label_names, path)
        if pair is None:
            continue
        where = f"{path}:{pair[0]}"
        images = pixels.check_images(arrays.pop(pair[0]), where)
        labels = pixels.check_labels(arrays[pair[1]], len(images), classes, f"{path}:{pair[1]}")
        if split == "train":
            classes = classes if classes is not None else int(labels.max()) + 1
            names = names or tuple(str(i) for i in range(classes))
            pixels.check_classes(labels, names, f"{path}:{pair[1]}")
        splits[split] = (images, labels)
    _check_alike(splits, path)
    return Raw(splits, names, pixels.scale_of(splits["train"][0]))


def _load(path: Path) -> dict[str, np.ndarray]:
    wanted = {name for pair in NAMES.values() for names in pair for name in names}
    if path.is_dir():
        raise BadInput(str(path), "is a folder", "give an .npz file or source=folder")
    if path.stat().st_size == 0:
        raise BadInput(str(path), "empty file", "give an .npz file")
    if not zipfile.is_zipfile(path):
        raise BadInput(
            str(path),
            "not an .npz file (or a truncated one)",
            "write it with numpy.savez(path, images=..., labels=...)",
        )
    arrays, where = {}, str(path)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            for name in data.files:
                where = f"{path}:{name}"
                if name in wanted or name == "class_names":
                    arrays[name] = data[name]
                else:
                    arrays[name] = np.empty(0)  # named in an error, never read
    except (OSError, EOFError, KeyError, ValueError, RuntimeError, *_DAMAGE) as error:
        if "pickle" in str(error).lower():
            raise BadInput(
                where,
                "holds pickled Python objects, which could run code",
                "store plain arrays of numbers (and strings for class_names)",
            ) from None
        raise BadInput(where, f"damaged file ({error})", "write it again") from None
    return arrays


def _class_names(arrays: dict[str, np.ndarray], facts: Facts | None, path: Path) -> tuple[str, ...]:
    if "class_names" not in arrays:
        if facts is None:
            return ()
        return facts.class_names or tuple(str(i) for i in range(facts.classes))
    names = arrays["class_names"]
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise BadInput(
            f"{path}:class_names", f"dtype {names.dtype}, shape {names.shape}", "a list of strings"
        )
    return tuple(n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names)


def _pair(
    arrays: dict[str, np.ndarray],
    image_names: tuple[str, ...],
    label_names: tuple[str, ...],
    path: Path,
) -> tuple[str, str] | None:
    images = next((n for n in image_names if n in arrays), None)
    labels = next((n for n in label_names if n in arrays), None)
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        have, lack = (images, label_names) if images else (labels, image_names)
        raise BadInput(str(path), f"has {have} but none of {', '.join(lack)}", "both are needed")
    return images, labels


def _check_alike(splits: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    train = splits["train"][0]
    for split, (images, _) in splits.items():
        if images.shape[1:] != train.shape[1:] or images.dtype != train.dtype:
            raise BadInput(
                str(path),
                f"{split} images are {images.shape[1:]} {images.dtype}, training images "
                f"{train.shape[1:]} {train.dtype}",
                "all splits must be alike",
            )
