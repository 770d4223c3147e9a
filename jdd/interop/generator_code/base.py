"""The programs of one architecture, and what several of them share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Code(NamedTuple):
    """Python text for PyTorch and for Flax."""

    torch: str
    flax: str


def constants(values: Mapping[str, Any]) -> str:
    """Return a line of Python for each value; values are plain numbers, texts and lists of them."""
    return "".join(f"{name} = {value!r}\n" for name, value in values.items()) + "\n"


# Flax variables of the file's arrays, whose names are paths.
CODE_NESTED = """
def nested(arrays):
    found = {}
    for path, array in arrays.items():
        *folders, name = path.split("/")
        at = found
        for folder in folders:
            at = at.setdefault(folder, {})
        at[name] = array
    return found

"""
