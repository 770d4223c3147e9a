"""All sets of a dataset in the order of one protocol, whatever their number of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdd.report import plain
from jdd.report.evidence import mapping
from jdd.report.headline import method
from jdd.report.html import DASH
from jdd.report.html import size as in_bytes
from jdd.report.runs import Found, Run

HEADS = ["images a class", "bytes a class", "own recipe, %", "soft, %", "hard, %",
         "soft, of random"]  # fmt: skip


class RankedRow(NamedTuple):
    """A set, or real images, and its figures in the order of ``HEADS``."""

    method: str
    run: str
    figures: list[str]


class Ranking(NamedTuple):
    """The sets of one dataset by one protocol and teacher, the best first."""

    title: str
    note: str
    heads: list[str]
    rows: list[RankedRow]


def rankings(found: Found) -> list[Ranking]:
    """Return a ranking of each (dataset, protocol, teacher) that some run was measured by."""
    together: dict[tuple[Any, ...], list[Run]] = {}
    for group in found.groups:
        for run in group.runs:
            figures = mapping(run.evidence.result, "protocol")
            if figures:
                key = (run.evidence.known("dataset"), *_measure(figures))
                together.setdefault(key, []).append(run)
    return [_ranking(key[0], runs) for key, runs in together.items()]


def _measure(figures: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what figures have to share to be in one ranking."""
    apart = ("rows", "teacher")
    settings = tuple((k, v) for k, v in sorted(figures.items()) if k not in apart)
    return (*settings, mapping(figures, "teacher").get("digest"))


def _ranking(dataset: str, runs: Sequence[Run]) -> Ranking:
    figures = mapping(runs[0].evidence.result, "protocol")
    made: dict[tuple[Any, ...], tuple[float, RankedRow]] = {}
    for run in runs:
        own = mapping(run.evidence.result, "protocol")["rows"]
        for name, row in own.items():
            # Real images of one number and seed are the same for every run: one row for all.
            key = (run.name,) if name == "set" else (name, row["images_per_class"], _figures(row))
            made.setdefault(key, (-row["soft"]["mean"], _row(run, name, row, own.get("random"))))
    ordered = [row for _, row in sorted(made.values(), key=lambda one: one[0])]
    note = (
        f"{plain.protocol_words(figures)}. Test accuracy in percent, the best soft labels first. "
        "Own recipe: by the recipe and labels of each set. Bytes: of pixels and classes, or of a "
        "generator's weights: compare rows of about as many. Of random: the difference in points "
        "from random real images of as many a class, by the same protocol."
    )
    return Ranking(f"{dataset} by one protocol", note, HEADS, ordered)


def _figures(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[column][of] for column in ("soft", "hard") for of in ("mean", "n"))


def _row(
    run: Run, name: str, row: Mapping[str, Any], random: Mapping[str, Any] | None
) -> RankedRow:
    scores = [
        plain.accuracy(one["mean"], one["std"], one["n"]) if one else DASH
        for one in (row["own"], row["soft"], row["hard"])
    ]
    even = random and random["images_per_class"] == row["images_per_class"]
    gain = DASH
    if random and even and name not in ("random", "random_bytes"):
        gain = f"{100 * (row['soft']['mean'] - random['soft']['mean']):+.1f}"
    figures = [f"{row['images_per_class']:g}", in_bytes(row["bytes_per_class"]), *scores, gain]
    if name == "set":
        return RankedRow(method(run.evidence) or "a set", run.name, figures)
    words = "random" if name == "random_bytes" else name
    return RankedRow(plain.ROWS[words].capitalize().replace("El2n", "EL2N"), "", figures)
