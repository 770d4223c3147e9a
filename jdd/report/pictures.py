"""The wall of images, by class."""

from __future__ import annotations

import base64

import numpy as np

from jdd.product import preview
from jdd.report.evidence import Evidence
from jdd.report.html import THIN, Html, plural, tag

BUDGET = 3_000_000  # bytes of pixels on the page; PNG of noise does not get smaller than that


def wall(evidence: Evidence) -> Html | None:
    """Show the images as pictures: each in the page itself, so that one file is all."""
    dataset = evidence.dataset
    if dataset is None:
        return None
    pixels, groups = preview.to_pixels(dataset), preview.by_class(dataset)
    room = max(1, BUDGET // pixels[0].size)
    most = max(len(group) for group in groups)
    classes = min(len(groups), room)
    each = max(1, min(most, room // classes))
    figures = []
    for name, group in list(zip(dataset.class_names, groups, strict=True))[:classes]:
        tiles = [
            tile(pixels[i], f"{name}, image {place + 1}") for place, i in enumerate(group[:each])
        ]
        figures.append(
            tag("figure", tag("figcaption", name, title=name), tag("div", *tiles, cls="tiles"))
        )
    note = _note(evidence, len(groups), classes, most, each)
    kind = "one" if most == 1 else "few" if most <= 10 else "many"
    if kind == "one" and classes <= 10:
        kind += " ten"
    if max(pixels.shape[1:3]) > 64:
        kind += " smooth"
    return tag(
        "section",
        tag("h2", "The images"),
        tag("p", note, cls="note"),
        tag("div", *figures, cls=f"wall {kind}", style=f"--columns:{min(each, 25)}"),
    )


def tile(pixels: np.ndarray, what: str) -> Html:
    """Return one image [h, w, c], the picture in the address itself."""
    data = base64.b64encode(preview.png(pixels)).decode()
    h, w = pixels.shape[:2]
    return tag(
        "img",
        src=f"data:image/png;base64,{data}",
        alt=what,
        title=what,
        width=w,
        height=h,
        loading="lazy",
    )


def _note(evidence: Evidence, classes: int, shown: int, most: int, each: int) -> str:
    dataset = evidence.dataset
    assert dataset is not None
    h, w, c = dataset.images.shape[1:]
    undone = "whitening undone" if dataset.transform.whitens else "normalisation undone"
    words = [
        f"All {plural(len(dataset.images), 'image')}"
        if (shown, each) == (classes, most)
        else f"{plural(shown, 'class').replace('classs', 'classes')}, "
        f"{plural(each, 'image')} of each (all are in distilled.npz)"
    ]
    words.append(
        f", {w}{THIN}×{THIN}{h}, {'grey' if c == 1 else 'colour'}; {undone}, values "
        "beyond black and white cut off."
    )
    return "".join(words)
