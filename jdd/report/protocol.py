"""Accuracies by one protocol for all sets, next to random real images and coresets."""

from __future__ import annotations

from typing import NamedTuple

from jdd.report import plain
from jdd.report.evidence import Evidence, mapping


class Measured(NamedTuple):
    """The section's values: a table, the best row first."""

    note: str
    heads: list[str]
    rows: list[list[str]]


def section(evidence: Evidence) -> Measured | None:
    """Return the figures by a common protocol; None if none were measured."""
    found = mapping(evidence.result, "protocol")
    if not found:
        return None
    note = (
        f"{plain.protocol_words(found)}. Test accuracy in percent, final step. Own recipe: by the "
        "recipe of this set, with its own labels. Bytes: of pixels and classes, or of a "
        "generator's weights; the teacher's labels are not part of a set."
    )
    return Measured(note, plain.PROTOCOL_HEADS, plain.protocol_rows(found))
