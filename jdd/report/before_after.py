"""Figures before and after training, for sets that adapt or attack trained nets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jdd.report.evidence import Evidence, Score, mapping, score
from jdd.report.html import DASH, mean_std, percent, plural


class BeforeAfter(NamedTuple):
    """The section's values: ``rows`` are (name, the figure in each of ``heads``)."""

    note: str
    heads: tuple[str, ...]
    rows: list[tuple[str, list[str]]]


def objective(evidence: Evidence) -> Mapping[str, Any]:
    """Return the set's objective: kind distill, adapt or attack, with its parameters."""
    found = mapping(evidence.result, "objective")
    return found if found.get("kind") else {"kind": "distill"}


def attacks(evidence: Evidence) -> bool:
    """Return whether the set attacks trained nets and its success rate was measured."""
    return objective(evidence).get("kind") == "attack" and "success" in _after(evidence)


def sentence(evidence: Evidence) -> tuple[str, str, str]:
    """Return the end of a sentence on an attack's success; the second part is the figure."""
    success = score(_after(evidence).get("success"))
    reached = percent(success.mean) if success else DASH
    classes = [str(objective(evidence).get(f"{word}_name", "")) for word in ("attack", "target")]
    return f"a trained {evidence.net} takes ", reached, f" of {classes[0]} for {classes[1]}"


def boxes(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the figures of an attack, each with its description."""
    found = dict(_figures(evidence, (_after(evidence),)))
    return [(_cell(at), name) for name, (at,) in found.items()][:2]


def section(evidence: Evidence) -> BeforeAfter | None:
    """Return the nets' figures before the steps, after them, and after steps on real images."""
    after = _after(evidence)
    before = mapping(after, "before")
    if not before:
        return None
    random = mapping(mapping(evidence.result, "baselines"), "random")
    rows = [
        (name, [_cell(at) for at in places])
        for name, places in _figures(evidence, (before, after, random))
    ]
    heads = ("Before the steps", "After the steps", "After steps on random real images")
    return BeforeAfter(_note(evidence, score(after)), heads, rows)


def _after(evidence: Evidence) -> Mapping[str, Any]:
    return mapping(mapping(evidence.result, "accuracy"), evidence.net) if evidence.scores else {}


def _figures(
    evidence: Evidence, places: tuple[Mapping[str, Any], ...]
) -> list[tuple[str, list[Score | None]]]:
    found = objective(evidence)
    figures = [("All test images, labelled right", [score(at) for at in places])]
    if found.get("kind") == "attack":
        attacked, target = found.get("attack_name"), found.get("target_name")
        named = {
            "success": f"Images of {attacked}, taken for {target}",
            "others": "Images of the other classes, labelled right",
        }
        more = [(words, [score(at.get(n)) for at in places]) for n, words in named.items()]
        figures = more + figures
    return figures


def _note(evidence: Evidence, after: Score | None) -> str:
    n = after.n if after else None
    source = objective(evidence).get("source")
    trained = f"trained on {source}" if source else "trained on the real images"
    kind = {"adapt": f"{trained} before", "attack": f"{trained} before"}
    begun = kind.get(str(objective(evidence).get("kind")), "as they were before the steps")
    nets = plural(n, evidence.net) if n else evidence.net
    return f"Tested: {nets} never seen while distilling, {begun}."


def _cell(found: Score | None) -> str:
    return mean_std(found.mean, found.std, found.n) if found else DASH
