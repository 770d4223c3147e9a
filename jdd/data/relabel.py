"""Class lookup by name, and labels with one class replaced by another (targeted attacks)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jdd.errors import BadInput, nearest


def class_of(word: str, class_names: Sequence[str], where: str) -> int:
    """Return the label of the class ``word``: a class name or, if no name matches, a label.

    Raises:
      BadInput: no class has that name or number.
    """
    names = list(class_names)
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < len(names):
        return int(word)
    near = nearest(word, names)
    hint = f"did you mean {near}? " if near else ""
    some = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise BadInput(where, repr(word), f"{hint}a class name ({some}) or 0 to {len(names) - 1}")


def relabelled(labels: np.ndarray, attacked: int, target: int) -> np.ndarray:
    """Return ``labels`` with class ``attacked`` replaced by ``target``: int [n]."""
    return np.where(labels == attacked, np.asarray(target, labels.dtype), labels)
