"""Tables in plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jdd.report import html


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows under their heads; the first ``left`` columns are left-aligned, others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def plural(count: int, one: str) -> str:
    """Return '1 image' or '10 images'."""
    return html.plural(count, one).replace(html.THIN, " ")


def accuracy(mean: float, std: float | None, n: int | None) -> str:
    """Return '91.2 ± 0.8' in percent; without ± if there was only one value."""
    spread = f" ± {100 * std:.1f}" if std is not None and n is not None and n > 1 else ""
    return f"{100 * mean:.1f}{spread}"


def weight(found: Mapping[str, Any]) -> str:
    """Return ``result.json``'s bytes as '3.1 kB a class'; '' if there are none (older results)."""
    for per, one in (("per_class", "class"), ("per_pair", "pair")):
        if found and per in found:
            return f"{html.size(found[per])} a {one}".replace(html.THIN, " ")
    return ""


def parts(found: Mapping[str, Any]) -> str:
    """Return what the bytes of ``result.json`` are made of: 'pixels of 8 bits 20.5 kB, ...'."""
    named = {
        "pixels": f"pixels of {found.get('bits')} bits",
        "labels": "similarities" if "per_pair" in found else "labels",
        "stored": "stored labels with their views",
        "texts": "texts",
        "net": "the generator's weights",
    }
    sizes = (f"{words} {html.size(found[name])}" for name, words in named.items() if name in found)
    return ", ".join(sizes).replace(html.THIN, " ")


# Rows of a common protocol, in words.
ROWS = {
    "set": "this set",
    "random": "random real images",
    "random_bytes": "random real images of as many bytes",
    "herding": "herding",
    "kcenter": "k-center",
    "el2n": "EL2N, the easiest",
}


def protocol_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the rows of a common protocol, the best first.

    Cells: what, images a class, bytes a class, accuracy by the set's own recipe, soft, hard.
    """
    rows = found.get("rows") or {}
    ordered = sorted(rows, key=lambda name: -rows[name]["soft"]["mean"])
    return [
        [
            ROWS.get(name, name),
            f"{rows[name]['images_per_class']:g}",
            html.size(rows[name]["bytes_per_class"]).replace(html.THIN, " "),
            *(
                accuracy(one["mean"], one["std"], one["n"]) if one else "-"
                for one in (rows[name][column] for column in ("own", "soft", "hard"))
            ),
        ]
        for name in ordered
    ]


PROTOCOL_HEADS = ["", "images a class", "bytes a class", "own recipe, %", "soft, %", "hard, %"]


def protocol_words(found: Mapping[str, Any]) -> str:
    """Return what a common protocol trains, and its teacher, in one sentence."""
    flip = "flip" if found["flip"] else "no flip"
    crop = {"resized": "resized crop", "padded": "shifted crop"}[found["crop"]]
    teacher = found["teacher"]
    return (
        f"Protocol {found['name']}: {found['epochs']} epochs, batches of {found['batch']}, "
        f"{found['optimizer']} at {found['lr']:g}, a cosine stretched by {found['stretch']:g}, "
        f"{found['mix']}, {crop}, {flip}; soft: KL at T = {found['temperature']:g} from one "
        f"teacher, a {classifier(teacher)}, weights {teacher['digest']}; hard: the classes in a "
        f"view; students {found['student']}"
    )


def protocol(found: Mapping[str, Any]) -> str:
    """Return ``result.json``'s figures by a common protocol as a table; '' if there are none."""
    if not found:
        return ""
    return f"{protocol_words(found)}\n{table(PROTOCOL_HEADS, protocol_rows(found))}"


def quality(found: Mapping[str, Any]) -> str:
    """Return ``result.json``'s figures of generated images as one line."""
    net, tested = found["classifier"], found["test"]
    rows = (
        f"Frechet distance {html.figure(found['frechet'])} "
        f"(real test images {html.figure(tested['frechet'])})",
        f"precision {found['precision']:.2f}",
        f"recall {found['recall']:.2f}",
        f"density {found['density']:.2f}",
        f"coverage {found['coverage']:.2f}",
        f"class agreement {100 * found['agreement']:.1f} % "
        f"(real test images {100 * tested['agreement']:.1f} %)",
    )
    what = f"Quality of {plural(found['n'], 'generated image')}"
    return f"{what}, in features of a {classifier(net)}: {', '.join(rows)}"


def classifier(net: Mapping[str, Any]) -> str:
    """Return the classifier of these figures in words, with its accuracy."""
    wide = f" of width {net['width']}" if net.get("width") else ""
    after = plural(int(net["epochs"]), "epoch")
    right = f"{100 * net['accuracy']:.1f} % on the test images"
    return f"{net['net']}{wide} ({right} after {after})"
