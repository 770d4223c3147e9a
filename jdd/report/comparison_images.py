"""Images of several runs on the compare page: by class, or the first pairs of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.product.pairs import PairSet
from jdd.report import pictures
from jdd.report.headline import method
from jdd.report.html import percent, plural
from jdd.report.pictures import Tile
from jdd.report.runs import Run

CLASSES, EACH = 10, 3  # images shown of a run: classes, and images of each


class Grid(NamedTuple):
    """Images of each set, columns aligned by class; ``rows`` are (method, about, stacks)."""

    note: str
    css: str
    names: Sequence[str]
    rows: list[tuple[str, str, list[list[Tile]]]]


def grid(runs: Sequence[Run], net: str, room: int) -> Grid | None:
    """Return a few images per class of every run, columns aligned by class; or its first pairs."""
    if any(isinstance(run.evidence.product, PairSet) for run in runs):
        return _pairs(runs, net, room)
    found = [(run, run.evidence.dataset) for run in runs]
    shown = [(run, one) for run, one in found if one is not None and one.transform.fitted]
    if not shown:
        return None
    sets = [dataset for _, dataset in shown]
    tiles = max(1, room // max(dataset.images[0].size for dataset in sets))
    names = sets[0].class_names[: max(1, min(CLASSES, tiles))]
    most = max(len(one) for dataset in sets for one in preview.by_class(dataset))
    each = max(1, min(EACH, most, tiles // len(names)))
    rows = []
    for run, dataset in shown:
        stacks = columns(dataset, names, each)
        rows.append((method(run.evidence) or "a set", _about(run, net), stacks))
    note = (
        f"The same classes of each set, {plural(each, 'image')} of each; normalisation and "
        "whitening undone, values beyond black and white cut off."
    )
    if hidden := [run.name for run, one in found if one is not None and not one.transform.fitted]:
        note += f" Not shown, as their files leave out the whitening: {', '.join(hidden)}."
    return Grid(note, "smooth" if pictures.smooth(sets[0]) else "", names, rows)


def columns(dataset: DistilledSet, names: Sequence[str], each: int) -> list[list[Tile]]:
    """Return for each class of ``names`` its first ``each`` images."""
    groups = dict(zip(dataset.class_names, preview.by_class(dataset), strict=True))
    if not set(names) & set(groups):  # other names for the same classes: match by order
        groups = dict(zip(names, groups.values(), strict=False))
    chosen = [groups.get(name, np.zeros(0, int))[:each] for name in names]
    index = np.concatenate(chosen).astype(int)
    few = dataset._replace(images=dataset.images[index])
    pixels = iter(preview.to_pixels(few)) if len(index) else iter(())
    return [
        [pictures.tile(next(pixels), f"{name}, image {i + 1}") for i in range(len(own))]
        for name, own in zip(names, chosen, strict=True)
    ]


def _about(run: Run, net: str) -> str:
    score = run.score(net)
    return f"{run.name} {percent(score.mean) if score else ''}"


def _pairs(runs: Sequence[Run], net: str, room: int) -> Grid:
    """Return the images of the first pairs of every run."""
    found = [(run, run.evidence.product) for run in runs]
    sets = [(run, pairs) for run, pairs in found if isinstance(pairs, PairSet)]
    largest = max(pairs.images[0].size for _, pairs in sets)
    count = max(1, min(CLASSES, room // largest, *(pairs.size for _, pairs in sets)))
    rows = []
    for run, pairs in sets:
        pixels = preview.to_pixels(pairs._replace(images=pairs.images[:count]))
        captions = pairs.captions or ("",) * count
        stacks = [[pictures.tile(pixels[i], captions[i] or f"pair {i + 1}")] for i in range(count)]
        rows.append((method(run.evidence) or "a set", _about(run, net), stacks))
    note = (
        f"The images of the first {plural(count, 'pair')} of each set; their captions are in the "
        "report of each run."
    )
    smooth = "smooth" if pictures.smooth(sets[0][1]) else ""
    return Grid(note, smooth, [str(i + 1) for i in range(count)], rows)
