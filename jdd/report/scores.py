"""DD-Ranking's scores: their descriptions, and the accuracies they are computed from."""

from __future__ import annotations

from typing import NamedTuple

from jdd.report.evidence import Evidence, mapping, real, score
from jdd.report.html import DASH, mean_std, percent

# Name in result.json, description, and inputs.
_SCORES = (
    ("lrs", "Label-robust score, LRS", "0 to 100 %, of w IOR − (1 − w) HLR"),
    (
        "ars",
        "Augmentation-robust score, ARS",
        "0 to 100 %, of the gains, augmented and not",
    ),
    ("hlr", "Hard-label recovery, HLR", "whole training set − this set with hard labels"),
    ("slr", "Soft-label recovery, SLR", "whole training set − this set with its own labels"),
    ("ior", "Improvement over random, IOR", "this set − random images with labels of its kind"),
)
_ACCURACIES = (
    ("whole", "Whole training set, hard labels"),
    ("syn", "This set, its own labels, its recipe"),
    ("syn_hard", "This set, hard labels"),
    ("random", "Random images, labels of the same kind"),
    ("syn_aug", "This set, with augmentation"),
    ("random_aug", "Random images, with augmentation"),
    ("syn_noaug", "This set, without augmentation"),
    ("random_noaug", "Random images, without augmentation"),
)


class Scores(NamedTuple):
    """The section's values: ``rows`` are (what, about it, value)."""

    note: str
    rows: list[tuple[str, str, str]]


def section(evidence: Evidence) -> Scores | None:
    """Return the scores and their underlying accuracies; None if none were computed."""
    found = mapping(evidence.result, "scores")
    if not found:
        return None
    rows = []
    for name, words, made in _SCORES:
        value = real(found.get(name))
        if value is not None:
            rows.append((words, made, percent(value)))
    accuracies = mapping(found, "accuracy")
    for name, words in _ACCURACIES:
        one = score(accuracies.get(name))
        value_words = mean_std(one.mean, one.std, one.n) if one else DASH
        rows.append((words, f"n = {one.n}" if one and one.n else "", value_words))
    return Scores(_note(evidence), rows)


def _note(evidence: Evidence) -> str:
    found = mapping(evidence.result, "scores")
    protocol = found.get("protocol")
    words = "; ".join(map(str, protocol)) if isinstance(protocol, list) else ""
    return (
        f"DD-Ranking's scores in percent, computed of accuracies as fractions, "
        f"w = {found.get('weight')}, "
        f"gamma = {found.get('gamma')}, on {found.get('net')}. Labels of the set: "
        f"{found.get('labels')}; of random images: {found.get('random_labels')}. Augmentation: "
        f"{str(found.get('augmentation', '')).replace('_', ', ')} (that of "
        f"{found.get('augmentation_of')}). {words[:1].upper()}{words[1:]}."
    )
