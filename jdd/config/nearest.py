"""The nearest published row of a dataset that has none: by size, channels, classes and counts.

With side, channels, classes, training images a class and IPC of both,

    d = |log2 side ratio| + |channels' difference| + |log2 classes ratio| / 2
        + |log2 IPC ratio| / 2 + |log2 images-a-class ratio| / 4

The row of the smallest d is taken, of equal ones the first in the table. The number of images
counts least: lengths are fitted to it afterwards. jdd's own settings of a dataset (``Spec.starts``,
at IPC 1) take part where the method has no published row of that dataset, for images of as many
channels and at most four times or a quarter of their side. A row of another net than the config's
takes no part: its rates are that net's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from jdd.specs.base import Spec


class Size(NamedTuple):
    """What settings are fitted to: (h, w, c) of the nets' input, classes, training images."""

    shape: tuple[int, int, int]
    classes: int
    images: int


class Row(NamedTuple):
    """Settings for one (dataset, IPC) and the dataset's size.

    ``tuned``: jdd's own settings, else a published row with the dataset's own settings under it.
    ``net``: the net of a published row that names one.
    """

    dataset: str
    ipc: int
    size: Size
    values: dict[str, Any]
    tuned: bool = False
    net: str = ""


# Of rows' datasets that no dataset of the catalogue has: images of your own.
_SIZES = {"imagenet64": Size((64, 64, 3), 1000, 1281167)}


def size_of(name: str) -> Size | None:
    """Return the size of a known dataset, else None."""
    from jdd.data import catalogue  # needs NumPy

    facts = catalogue.lookup(name)
    return Size(facts.shape, facts.classes, facts.sizes[0]) if facts else _SIZES.get(name)


def rows(spec: Spec) -> list[Row]:
    """Return a method's rows whose datasets have a known size: the published ones, then jdd's."""
    return [*_published(spec), *_own(spec)]


def _published(spec: Spec) -> Iterator[Row]:
    for (dataset, ipc), row in spec.published.items():
        if (size := size_of(dataset)) is not None:
            own, net = spec.starts.get(dataset, {}), str(row["values"].get("net.name", ""))
            yield Row(dataset, ipc, size, {**own, **row["values"]}, net=net)


def _own(spec: Spec) -> Iterator[Row]:
    published = {dataset for dataset, _ in spec.published}
    for dataset, values in spec.starts.items():
        if dataset not in published and (size := size_of(dataset)) is not None:
            yield Row(dataset, 1, size, {**spec.defaults, **values}, tuned=True)


def distance(size: Size, ipc: int, row: Row) -> float:
    """Return d of the module."""
    each, of_row = size.images / size.classes, row.size.images / row.size.classes
    return (
        _sides(size, row)
        + abs(size.shape[2] - row.size.shape[2])
        + _octaves(size.classes, row.size.classes) / 2
        + _octaves(ipc, row.ipc) / 2
        + _octaves(each, of_row) / 4
    )


def nearest(spec: Spec, size: Size, ipc: int, net: str) -> Row | None:
    """Return the row of the smallest distance; None if the method has no row that may be taken.

    Args:
      net: the net of the config.
    """
    may = [
        row for row in rows(spec) if row.net in ("", net) and (not row.tuned or _alike(size, row))
    ]
    return min(may, key=lambda row: distance(size, ipc, row), default=None)


def _alike(size: Size, row: Row) -> bool:
    return size.shape[2] == row.size.shape[2] and _sides(size, row) <= 2


def _sides(size: Size, row: Row) -> float:
    """Return the octaves between the sides, of images that are not square the geometric means."""
    return 0.5 * _octaves(math.prod(size.shape[:2]), math.prod(row.size.shape[:2]))


def _octaves(a: float, b: float) -> float:
    return abs(math.log2(a / b))
