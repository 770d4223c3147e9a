"""A user's own arrays in one .npz file."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from jdd import memory
from jdd.data import class_names
from jdd.data.catalogue import Facts
from jdd.data.sources import pixels
from jdd.data.sources.image_buffer import Spool
from jdd.data.sources.request import Raw
from jdd.errors import BadInput
from jdd.storage import npz_files, zips

# The documented names of (images, labels), the first found is taken.
NAMES = {
    "train": (("images", "x_train", "train_images"), ("labels", "y_train", "train_labels")),
    "val": (("x_val", "val_images"), ("y_val", "val_labels")),
    "test": (("x_test", "test_images"), ("y_test", "test_labels")),
}
_DAMAGE = (OSError, EOFError, KeyError, ValueError, RuntimeError, zipfile.BadZipFile, zlib.error)
_ALLOWED = "an .npz file: numpy.savez(path, images=..., labels=...)"
_BYTES = 1 << 24  # of images copied to a file at a time


def read(path: Path, facts: Facts | None, spool: Spool | None = None, size: int = 0) -> Raw:
    """Read images and labels of an .npz file.

    Arrays: ``images`` (or x_train, train_images) [n, h, w] or [n, h, w, c], uint8 or float in
    [0, 1]; ``labels`` (y_train, train_labels) [n]; optionally x_test/y_test (test_images/
    test_labels), x_val/y_val (val_images/val_labels) and ``class_names`` [C].

    Args:
      spool: a file to write the images to in pieces, resized to ``size``; the splits then hold
        the images' places in it, as ``Spool.take`` returns them.

    Raises:
      BadInput: not an .npz, pickled objects, missing arrays, or contents that are out of range;
        with a spool, images that are not uint8.
    """
    arrays = _load(path, images=spool is None)
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
    splits: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    array_of: dict[str, str] = {}
    notes: list[str] = []
    for split, (image_names, label_names) in NAMES.items():
        pair = _pair(arrays, image_names, label_names, path)
        if pair is None:
            continue
        where = f"{path}:{pair[0]}"
        images = pixels.validate_images(arrays.pop(pair[0]), where)
        labels = pixels.validate_labels(arrays[pair[1]], len(images), classes, f"{path}:{pair[1]}")
        if split == "train":
            classes = classes if classes is not None else int(labels.max()) + 1
            names = names or tuple(str(i) for i in range(classes))
            pixels.validate_classes(labels, names, f"{path}:{pair[1]}")
        splits[split], array_of[split] = (images, labels), pair[0]
        if spool is None:
            notes += pixels.dark(float(images.max()), pixels.scale_of(images), pair[0])
    _validate_alike(splits, path)
    if spool is not None:
        shape = splits["train"][0].shape
        for split, (_, labels) in splits.items():
            images, high = _spooled(path, array_of[split], spool, size)
            splits[split] = (images, labels)
            notes += pixels.dark(high, 255.0, array_of[split])
        return Raw(dict(splits), names, 255.0, (*notes, *pixels.squeezed(shape, size)))
    return Raw(dict(splits), names, pixels.scale_of(splits["train"][0]), tuple(notes))


def _spooled(path: Path, name: str, spool: Spool, size: int) -> tuple[np.ndarray, int]:
    """Copy the images of one array to the spool; return their places and the largest value."""
    try:
        with zips.opened(path) as archive, archive.open(f"{name}.npy") as file:
            shape, _, _ = npz_files.npy_header(file)
            item = shape[1:] if len(shape) == 4 else (*shape[1:], 1)
            one, first, left, high = int(np.prod(item)), -1, shape[0], 0
            while left:
                count = min(left, max(1, _BYTES // one))
                images = np.frombuffer(file.read(count * one), np.uint8).reshape(count, *item)
                high = max(high, int(images.max()))
                if size and item[:2] != (size, size):
                    images = pixels.resize(images, 255.0, size)
                place = spool.extend(images)
                first, left = (place if first < 0 else first), left - count
    except _DAMAGE as error:
        raise BadInput(f"{path}:{name}", f"damaged file ({error})", "write it again") from None
    return spool.take(range(first, first + shape[0]))[0], high


def _outline(path: Path, name: str, header: npz_files.Header) -> np.ndarray:
    """Return an array without bytes of its own that has the stored array's shape.

    Raises:
      BadInput: it cannot be read a piece at a time.
    """
    if header.dtype != np.uint8 or header.fortran:
        order = " in Fortran order" if header.fortran else ""
        raise BadInput(
            "config.data.stream",
            f"true, and {path}:{name} is {header.dtype}{order}",
            "uint8 in C order can be streamed; or --config.data.stream=false",
        )
    return np.broadcast_to(np.zeros((), np.uint8), header.shape)


def _load(path: Path, images: bool = True) -> dict[str, np.ndarray]:
    wanted = {name for pair in NAMES.values() for names in pair for name in names}
    outlined = {name for pair in NAMES.values() for name in pair[0]} if not images else set()
    headers = npz_files.headers(path, _ALLOWED, wanted | {"class_names"})
    allowed = "fewer images, or uint8 with --config.data.stream=true"
    memory.validate_npz_size(path, allowed, wanted | {"class_names"}, outlined)
    arrays = npz_files.read(path, _ALLOWED, (wanted | {"class_names"}) - outlined)
    for name, header in headers.items():
        if header is None:
            arrays[name] = np.empty(0)  # named in an error, never read
        elif name in outlined:
            arrays[name] = _outline(path, name, header)
    return {name: arrays[name] for name in headers}


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
    found = tuple(n.decode(errors="replace") if isinstance(n, bytes) else str(n) for n in names)
    if twice := class_names.duplicates(found):
        raise BadInput(
            f"{path}:class_names",
            f"{twice[0]!r} more than once",
            "a name of its own for each class",
        )
    return found


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


def _validate_alike(splits: dict[str, tuple[np.ndarray, np.ndarray]], path: Path) -> None:
    train = splits["train"][0]
    for split, (images, _) in splits.items():
        if images.shape[1:] != train.shape[1:] or images.dtype != train.dtype:
            raise BadInput(
                str(path),
                f"{split} images are {images.shape[1:]} {images.dtype}, training images "
                f"{train.shape[1:]} {train.dtype}",
                "all splits must be alike",
            )
