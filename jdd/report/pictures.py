"""The images of the set, by class, as PNG data inside the page."""

from __future__ import annotations

import base64
from typing import NamedTuple

import numpy as np

from jdd.product import preview
from jdd.product.distilled_set import DistilledSet
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet
from jdd.report.evidence import Evidence
from jdd.report.html import THIN, plural

BUDGET = 3_000_000  # bytes of pixels on the page; PNG does not compress noise below this


class Tile(NamedTuple):
    """One image: its data URL, its description, its size in pixels."""

    src: str
    what: str
    width: int
    height: int


class Wall(NamedTuple):
    """The section's values: the images of each class, and their grid."""

    note: str
    css: str
    columns: int
    classes: list[tuple[str, list[Tile]]]


def section(evidence: Evidence) -> Wall | None:
    """Return the images by class, as many as ``BUDGET`` allows; None if there are no classes."""
    product = evidence.product
    if product is None:
        return None
    dataset = preview.shown(product)
    if isinstance(dataset, PairSet):  # pairs.py
        return None
    pixels, groups = preview.to_pixels(dataset), preview.by_class(dataset)
    room = max(1, BUDGET // pixels[0].size)
    most = max(len(group) for group in groups)
    shown = min(len(groups), room)
    each = max(1, min(most, room // shown))
    classes = [
        (name, [tile(pixels[i], f"{name}, image {at + 1}") for at, i in enumerate(group[:each])])
        for name, group in list(zip(dataset.class_names, groups, strict=True))[:shown]
    ]
    css = "one" if most == 1 else "few" if most <= 10 else "many"
    css += " ten" if most == 1 and shown <= 10 else ""
    css += " smooth" if smooth(dataset) else ""
    whole = shown == len(groups) and each == most
    note = _note(dataset, shown, each, whole)
    if isinstance(product, GeneratorSet):
        note = f"Images of one epoch; students see others in each. {note}"
    return Wall(note, css, min(each, 25), classes)


def smooth(dataset: DistilledSet | PairSet) -> bool:
    """Return whether images are large enough for smooth scaling."""
    return max(dataset.images.shape[1:3]) > 64


def tile(pixels: np.ndarray, what: str) -> Tile:
    """Return one image from its pixels [h, w, c] of type uint8."""
    data = base64.b64encode(preview.png(pixels)).decode()
    h, w = pixels.shape[:2]
    return Tile(f"data:image/png;base64,{data}", what, w, h)


def _note(dataset: DistilledSet, shown: int, each: int, whole: bool) -> str:
    h, w, c = dataset.images.shape[1:]
    undone = "whitening undone" if dataset.transform.whitens else "normalisation undone"
    which = f"All {plural(len(dataset.images), 'image')}"
    if not whole:
        classes = plural(shown, "class").replace("classs", "classes")
        which = f"{classes}, {plural(each, 'image')} of each (all are in distilled.npz)"
    return (
        f"{which}, {w}{THIN}×{THIN}{h}, {'grey' if c == 1 else 'colour'}; {undone}, values "
        "beyond black and white cut off."
    )
