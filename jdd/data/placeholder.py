"""Stand-in for a known dataset that is not on this machine: its shape and counts, for estimates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jdd.data import catalogue as table
from jdd.data.dataset import Dataset, Split
from jdd.data.sources import tfds_sets
from jdd.data.sources.request import setting, side, source_of
from jdd.data.transform import normalisation, unfitted, validate_whitening, whitening_kind
from jdd.schema.common import Data

FINGERPRINT = "placeholder"


def absent(data_config: Data | Mapping[str, Any]) -> bool:
    """True if a config names a known dataset without a path and the dataset is not installed.

    A path that is set is never replaced by a placeholder: a wrong path is an error.
    """
    name, path = str(setting(data_config, "name")), str(setting(data_config, "path"))
    known = table.lookup(name)
    if known is None or path:
        return False
    source = source_of(name, str(setting(data_config, "source")), path)
    return source in ("folder", "npz") or source == "tfds" and not tfds_sets.there(known.tfds)


def placeholder(data_config: Data | Mapping[str, Any]) -> Dataset:
    """Return a known dataset with black images that take no memory (arrays with strides of zero).

    The counts are the published ones, with classes of equal size. The transform is the published
    mean and deviation, or an unfitted whitening. No validation images are held out.

    Raises:
      BadInput: a size or a whitening that a run would refuse, also for lack of memory.
    """
    known = table.CATALOGUE[str(setting(data_config, "name"))]
    size, (height, width, channels) = side(data_config), known.shape
    zca = whitening_kind(setting(data_config, "zca"))
    shape = (size, size, channels) if size else (height, width, channels)
    validate_whitening(zca, shape)
    train, test = (
        Split(
            np.broadcast_to(np.float32(0), (n, *shape)),
            np.sort(np.arange(n, dtype=np.int32) % known.classes),
        )
        for n in known.sizes
    )
    first = normalisation(np.array(known.mean), np.array(known.std))
    dsa = str(setting(data_config, "dsa"))
    counts = f"{known.sizes[0]} training and {known.sizes[1]} test images of {shape[0]}x{shape[1]}"
    own = ", as published" if shape == known.shape else ", in the published numbers"
    return Dataset(
        name=known.name,
        class_names=known.class_names or tuple(str(i) for i in range(known.classes)),
        train=train,
        val=None,
        test=test,
        transform=first if zca == "none" else unfitted(zca, shape, first),
        dsa=known.dsa if dsa == "auto" else dsa,
        fingerprint=FINGERPRINT,
        notes=(f"{known.name} is not here: estimated for {counts}{own}",),
    )
