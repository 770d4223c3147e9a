"""Images of step 0 from another set: ``config.init_set``."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from jdd.data.dataset import Dataset
from jdd.errors import BadInput
from jdd.product import files
from jdd.product.distilled_set import DistilledSet
from jdd.schema.common import Common

WHERE = "config.init_set"


def given(config: Common) -> str:
    """Return the path of the set that a run's images start from; '' for none."""
    found: str = getattr(config, "init_set", "")
    return found


def read(config: Common, data: Dataset) -> np.ndarray | None:
    """Return the images of ``config.init_set`` in the space of ``data``; None without the key.

    Images of a set in another space (normalisation, whitening) are mapped to pixels and from these
    to the space of ``data``; they are not clipped. Labels and rates of the set are not used.

    Returns:
      float32 [classes ipc, h, w, c], class-major.

    Raises:
      BadInput: the file is no jdd set; its images have another size, its classes other names, or a
        class has another number of images than ``config.ipc``.
    """
    if not (path := given(config)):
        return None
    dset = files.load(files.set_path(Path(path).expanduser()))
    if not isinstance(dset, DistilledSet):
        raise BadInput(f"{WHERE}={path}", f"a product of kind {dset.kind!r}", "a fixed set")
    _validate(dset, config, data, f"{WHERE}={path}")
    rows = np.argsort(dset.classes_of_images, kind="stable")
    images = dset.images[rows]
    ours, theirs = data.transform, dset.transform
    same = all(np.array_equal(getattr(ours, n), getattr(theirs, n)) for n in _FITTED)
    if not theirs.fitted:  # of a whitening that is left out the data determine all
        same = dset.recipe.get("data_fingerprint") == data.fingerprint
    return images if same else ours.forward(theirs.inverse(images))


def digest(config: Common) -> str:
    """Return a hash of the file, on which a run's set depends; '' without the key.

    Raises:
      BadInput: the file cannot be read.
    """
    if not (path := given(config)):
        return ""
    file = files.set_path(Path(path).expanduser())
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()[:16]
    except OSError as error:
        found = f"cannot be read ({error.strerror})"
        raise BadInput(f"{WHERE}={path}", found, "a set of jdd") from None


_FITTED = ("mean", "std", "zca_mean", "zca_matrix", "zca_image")


def _validate(dset: DistilledSet, config: Common, data: Dataset, where: str) -> None:
    size, shape = dset.images.shape[1:], tuple(data.shape)
    if size != shape:
        raise BadInput(where, f"images of {_by(size)}", f"{_by(shape)}, the size of {data.name}")
    if dset.class_names != tuple(data.class_names):
        found = f"{dset.classes} classes ({', '.join(dset.class_names[:3])} ...)"
        allowed = f"the {data.classes} of {data.name} ({', '.join(data.class_names[:3])} ...)"
        raise BadInput(where, found, allowed)
    counts = np.bincount(dset.classes_of_images, minlength=data.classes)
    if (counts != config.ipc).any():
        found = f"{counts.min()} to {counts.max()} images of a class"
        found = f"{counts[0]} images of each class" if counts.min() == counts.max() else found
        allowed = f"{config.ipc}, as config.ipc"
        if counts.min() == counts.max():
            allowed += f"; or --config.ipc={counts[0]}"
        raise BadInput(where, found, allowed)


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
