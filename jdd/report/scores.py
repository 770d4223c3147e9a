"""Scores beside accuracy: what they are, and the accuracies they are made of."""

from __future__ import annotations

from jdd.report.evidence import Evidence, mapping, real, score
from jdd.report.html import DASH, Html, mean_std, percent, tag

# name in result.json, what it is, and what it is made of
_SCORES = (
    ("lrs", "Label-robust score, LRS", "0 to 1, of w IOR − (1 − w) HLR"),
    ("ars", "Augmentation-robust score, ARS", "0 to 1, of the gain with and without augmentation"),
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


def table(evidence: Evidence) -> Html | None:
    """Tabulate the scores and the accuracies behind them; None where they were not asked for."""
    found = mapping(evidence.result, "scores")
    if not found:
        return None
    rows = []
    for name, words, made in _SCORES:
        value = real(found.get(name))
        if value is not None:
            shown = f"{value:.3f}" if name in ("lrs", "ars") else percent(value)
            rows.append(_row(words, made, shown))
    accuracies = mapping(found, "accuracy")
    for name, words in _ACCURACIES:
        one = score(accuracies.get(name))
        shown = mean_std(one.mean, one.std, one.n) if one else DASH
        rows.append(_row(words, f"n = {one.n}" if one and one.n else "", shown))
    body = tag("table", tag("tbody", *rows))
    note = tag("p", _note(evidence), cls="note")
    return tag("section", tag("h2", "Scores"), note, tag("div", body, cls="scroll"))


def _row(words: str, about: str, value: str) -> Html:
    small = tag("small", f" {about}") if about else None
    return tag("tr", tag("td", words, small), tag("td", value, cls="num"))


def _note(evidence: Evidence) -> str:
    found = mapping(evidence.result, "scores")
    protocol = found.get("protocol")
    told = "; ".join(map(str, protocol)) if isinstance(protocol, list) else ""
    return (
        f"DD-Ranking's scores, of accuracies as fractions, w = {found.get('weight')}, "
        f"gamma = {found.get('gamma')}, on {found.get('net')}. Labels of the set: "
        f"{found.get('labels')}; of random images: {found.get('random_labels')}. Augmentation: "
        f"{str(found.get('augmentation', '')).replace('_', ', ')} (that of "
        f"{found.get('augmentation_of')}). {told[:1].upper()}{told[1:]}."
    )
