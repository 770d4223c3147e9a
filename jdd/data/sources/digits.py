"""The 8x8 digits that come with scikit-learn: real images without a download."""

from __future__ import annotations

import numpy as np

from jdd.data.sampler import class_indices
from jdd.data.sources.request import Raw
from jdd.errors import BadInput


def read() -> Raw:
    """Return the 1,797 digits with a fixed stratified split.

    Within each class, in file order, every fifth image is test: 1,442 training and 355 test
    images. Grey levels are 0..16.

    Raises:
      BadInput: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise BadInput(
            "digits", "scikit-learn is not installed", "type: pip install scikit-learn"
        ) from None
    bundle = load_digits()
    images = bundle.images.astype(np.uint8)[..., None]
    labels = bundle.target.astype(np.int32)
    test = np.zeros(len(labels), bool)
    for group in class_indices(labels, 10):
        test[group[4::5]] = True
    splits = {"train": (images[~test], labels[~test]), "test": (images[test], labels[test])}
    return Raw(splits, tuple("0123456789"), 16.0)
