"""The report of a generator: its figures, copies, paths between latents, pictures while it trained.

A method with generative priors as phases has the pictures and curves of these alone.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd.errors import BadInput
from jdd.product.generator import GeneratorSet
from jdd.report import plain, svg
from jdd.report.curves import Chart
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import DASH, THIN, figure, percent, plural, size
from jdd.report.pictures import BUDGET, Tile, tile
from jdd.storage import npz_files

LINE = "quality-"  # the beginning of the names of a prior's lines; quality-classifier is another
FIGURES = {
    "frechet": ("Frechet distance", "of the features' Gaussians; 0 is equal"),
    "precision": ("Precision", "generated images that lie among real ones"),
    "recall": ("Recall", "real images that lie among generated ones"),
    "density": ("Density", "how densely real images lie around generated ones"),
    "coverage": ("Coverage", "real images with a generated one near by"),
    "agreement": ("Class agreement", "images that the classifier takes for their class"),
}
SHARES = ("agreement",)
_CURVES = {
    "frechet": "Frechet distance",
    "agreement": "Class agreement",
    "reconstruction": "Error of reconstruction",
}
PICTURES = 4  # of each prior


class Duo(NamedTuple):
    """A generated image and the nearest training image."""

    made: Tile
    near: Tile
    ratio: str


_DAMAGED = (
    " checkpoints/quality.npz is damaged, so its pictures are left out; the same command, or "
    "--mode=quality, makes it again."
)


class Alike(NamedTuple):
    """Generated images next to the nearest training images, by class."""

    note: str
    classes: list[tuple[str, list[Duo]]]
    css: str


class Paths(NamedTuple):
    """Images from one latent to another, by class."""

    note: str
    columns: int
    classes: list[tuple[str, list[Tile]]]
    css: str


class Pictures(NamedTuple):
    """Pictures of a prior while it trained: (step in words, tile)."""

    title: str
    note: str
    shown: list[tuple[str, Tile]]


class Generated(NamedTuple):
    """The section's values; each part may be empty.

    ``figures``: name, meaning, of generated images, of real test images.
    """

    note: str
    figures: list[tuple[str, str, str, str]]
    storage: list[tuple[str, str]]
    alike: Alike | None
    paths: Paths | None
    charts: list[Chart]
    charts_note: str
    pictures: list[Pictures]


def section(evidence: Evidence) -> Generated | None:
    """Return the section of a generator or of generative priors; None if there are none."""
    found = mapping(evidence.result, "quality")
    product = evidence.product
    storage = _storage(product) if isinstance(product, GeneratorSet) else []
    arrays = _arrays(evidence) if found else None
    damaged = bool(found) and arrays is None and _artefact(evidence).exists()
    names = list(evidence.recipe.get("class_names") or ())
    made = Generated(
        _note(found) + _DAMAGED * damaged if found else "",
        _figures(found) if found else [],
        storage,
        _alike(found, arrays, names) if arrays else None,
        _paths(arrays, names) if arrays else None,
        charts := _charts(evidence),
        _charts_note(evidence) if charts else "",
        _pictures(evidence),
    )
    return made if any(made) else None


def _note(found: Mapping[str, Any]) -> str:
    net, n, real_n = mapping(found, "classifier"), int(found["n"]), int(found["real"])
    seeds = mapping(found, "seeds")
    several = f" Means of {len(seeds)} synthesis seeds." if seeds else ""
    return (
        f"{plural(n, 'generated image')} against {plural(real_n, 'training image')} of the same "
        f"classes, in the {net['features']} features of a {plain.classifier(net)}, trained on the "
        f"real training images; nearest neighbours: k{THIN}={THIN}{found['k']}. Next to them "
        f"{plural(int(mapping(found, 'test')['n']), 'real test image')}, measured in the same way. "
        "The distance is not the FID of papers, which has another net's features; compare figures "
        f"of the same n, k and classifier alone.{several}"
    )


def shown(name: str, value: Any) -> str:
    """Return a figure of ``FIGURES`` as text; a dash if it is unknown."""
    number = real(value)
    if number is None:
        return DASH
    return percent(number) if name in SHARES else figure(number)


def _figures(found: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    tested = mapping(found, "test")
    rows = [
        (title, about, shown(name, found.get(name)), shown(name, tested.get(name)))
        for name, (title, about) in FIGURES.items()
    ]
    for name, value in mapping(found, "reconstruction").items():
        about = f"mean squared difference of test images that {name} encodes and decodes, 0 to 1"
        rows.append(("Error of reconstruction", about, shown("", value), DASH))
    return rows


def _storage(product: GeneratorSet) -> list[tuple[str, str]]:
    equal, classes = product.equal_images, product.classes
    bytes_of_one = 4 * int(np.prod(product.shape))
    each = str(equal // classes) if equal >= classes else f"{equal / classes:.2g}"
    return [
        ("Parameters", plural(product.parameters, "number").removesuffix(" numbers")),
        ("Bytes", f"{size(product.stored_bytes)} in float32"),
        (
            "Images of as many bytes",
            f"{plural(equal, 'image')} of {size(bytes_of_one)} in float32, {each} of each class",
        ),
        (
            "Images of an epoch",
            f"{plural(product.size, 'image')}, {product.per_class} of each class: other ones in "
            "every epoch. Papers on generators call this number images per class (IPC)",
        ),
        (
            "Random real images",
            f"the baseline that nets are compared with has {product.recipe['ipc']} of each class",
        ),
    ]


def _artefact(evidence: Evidence) -> Path:
    return evidence.workdir / "checkpoints" / "quality.npz"


def _arrays(evidence: Evidence) -> dict[str, np.ndarray] | None:
    """Return the images that the stage quality has stored; None if missing or damaged."""
    try:
        stored = npz_files.read(_artefact(evidence), "")
        return {n: stored[n] for n in ("images", "nearest", "ratio", "labels", "paths")}
    except (BadInput, KeyError):
        return None


def _css(images: np.ndarray) -> str:
    return " smooth" if max(images.shape[1:3]) > 64 else ""


def _alike(found: Mapping[str, Any], arrays: dict[str, np.ndarray], names: list[str]) -> Alike:
    classes: list[tuple[str, list[Duo]]] = []
    images, near, room = arrays["images"], arrays["nearest"], BUDGET // 4
    for c in np.unique(arrays["labels"]):
        rows = np.flatnonzero(arrays["labels"] == c)
        if classes and 2 * images[: rows[-1] + 1].size > room:
            break
        name = names[c] if c < len(names) else str(c)
        classes.append((name, [_duo(images[i], near[i], arrays["ratio"][i], name) for i in rows]))
    return Alike(memory_words(mapping(found, "memory")), classes, _css(images))


def _duo(made: np.ndarray, near: np.ndarray, ratio: float, name: str) -> Duo:
    words = f"{ratio:.2f}{THIN}×"
    return Duo(tile(made, f"{name}, generated"), tile(near, f"{name}, nearest real image"), words)


def memory_words(found: Mapping[str, Any]) -> str:
    """Return in words how near generated images come to training images."""
    ratio = found["median"] / max(found["typical"], 1e-12)
    n, nearer, expected = int(found["n"]), found["nearer"], found["expected"]
    if nearer <= 2 * expected:
        verdict = "There is no sign of copies."
    else:
        verdict = (
            "These are more than among training images: copies, or images that are smoother than "
            "real ones, which lie near many of them. The pairs show which."
        )
    return (
        "Left of each pair a generated image, right the nearest training image, pixel by pixel; "
        "below their distance over the typical one, the median distance of a training image to the "
        f"nearest other one (a root mean square difference of {figure(found['typical'])}, pixels "
        f"from 0 to 1). The median of {plural(n, 'generated image')} is {ratio:.2f}{THIN}×. "
        f"{percent(nearer)} of them are nearer than the nearest {100 * expected:.0f}{THIN}% of "
        f"training images are to each other. {verdict}"
    )


def _paths(arrays: dict[str, np.ndarray], names: list[str]) -> Paths:
    classes = len(np.unique(arrays["labels"]))
    ways = arrays["paths"].reshape(classes, -1, *arrays["paths"].shape[1:])
    room = max(1, BUDGET // 4 // ways[0].size)
    rows = [
        (name, [tile(x, f"{name}, {at + 1} of {len(way)}") for at, x in enumerate(way)])
        for name, way in zip([*names, *map(str, range(classes))], ways[:room], strict=False)
    ]
    note = (
        "From one latent to another of the same class, on the great circle between them. Images "
        "that change step by step belong to one manifold; sudden changes and faded images between "
        "clear ones are gaps in it."
    )
    return Paths(note, ways.shape[1], rows, _css(arrays["paths"]))


def _charts(evidence: Evidence) -> list[Chart]:
    """Return the curves of quality against training steps, a line for each prior."""
    points: dict[str, list[Mapping[str, Any]]] = {}
    for row in evidence.rows:
        name = str(row["stage"]).removeprefix(LINE)
        if name != row["stage"] and name != "classifier":
            points.setdefault(name, []).append(row)
    charts = []
    for key, title in _CURVES.items():
        lines = [
            line
            for at, (name, rows) in enumerate(points.items())
            if (line := _line(key, name, rows, f"s{at % 6}")) is not None
        ]
        if lines:
            shares = key in SHARES
            drawing = svg.chart(
                lines, title=f"{title} while training", x_label="step",
                y_label="%" if shares else "", height=240, shares=shares,
            )  # fmt: skip
            legend = [(line.css, line.label) for line in lines] if len(lines) > 1 else []
            n = max(int(row.get("n", 0)) for rows in points.values() for row in rows)
            charts.append(Chart(f"{title}, {plural(n, 'image')} a point", legend, drawing, ""))
    return charts


def _charts_note(evidence: Evidence) -> str:
    rows = [r for r in evidence.rows if str(r["stage"]).startswith(LINE) and r.get("classifier")]
    if not rows:
        return ""
    return (
        f"In features of a {rows[-1]['classifier']}. Points of fewer images have larger distances "
        "than the table of the generator."
    )


def _line(key: str, name: str, rows: list[Mapping[str, Any]], css: str) -> svg.Line | None:
    found = sorted((row["step"], v) for row in rows if (v := real(row.get(key))) is not None)
    if len(found) < 2:
        return None
    x, y = (np.asarray(values, float) for values in zip(*found, strict=True))
    return svg.Line(name, x, y, css=css, dots=len(x) <= 40)


def _pictures(evidence: Evidence) -> list[Pictures]:
    """Return the last pictures of each prior, as many as a share of ``BUDGET`` allows."""
    found, room = list[Pictures](), BUDGET // 2
    for folder in sorted(p for p in (evidence.workdir / "samples").glob("*") if p.is_dir()):
        if again := _reconstructions(evidence, folder):
            room -= len(again.shown[0][1].src)
            found.append(again)
        paths = sorted(folder.glob("[0-9]*.png"), key=lambda path: int(path.stem))
        listed = list[tuple[str, Tile]]()
        for path in reversed(paths[-PICTURES:]):
            data = path.read_bytes()
            room -= len(data)
            if listed and room < 0:
                break
            step = int(path.stem)
            listed.insert(0, (f"step {step}", _picture(data, f"{folder.name}, step {step}")))
        if listed:
            note = "The same latents at each step, a row for each class."
            found.append(Pictures(f"Samples of {folder.name}", note, listed))
    return found


def _reconstructions(evidence: Evidence, folder: Path) -> Pictures | None:
    """Return the last picture of test images over what a prior decodes them to; None: none."""
    paths = {int(p.stem.rpartition("-")[2]): p for p in folder.glob("reconstruction-[0-9]*.png")}
    if not paths:
        return None
    step = max(paths)
    errors = [
        value
        for row in evidence.rows
        if row["stage"] == f"{LINE}{folder.name}" and row["step"] == step
        if (value := real(row.get("reconstruction"))) is not None
    ]
    note = "Test images of each class, and below each what it is encoded and decoded to."
    for value in errors[-1:]:
        note += f" The mean squared error of test images, in pixels of 0 to 1, is {figure(value)}."
    picture = _picture(paths[step].read_bytes(), f"{folder.name}, reconstructions, step {step}")
    return Pictures(f"Reconstructions by {folder.name}", note, [(f"step {step}", picture)])


def _picture(data: bytes, what: str) -> Tile:
    """Return a PNG file as it is; its header has its size."""
    w, h = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    return Tile(f"data:image/png;base64,{base64.b64encode(data).decode()}", what, w, h)
