"""What the steps change in nets that were trained already: figures before and after them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.report.evidence import Evidence, Score, mapping, score
from jdd.report.html import DASH, Html, join, mean_std, percent, plural, tag


def aim(evidence: Evidence) -> Mapping[str, Any]:
    """Return what the set is for: kind distill, adapt or attack, and what belongs to it."""
    found = mapping(evidence.result, "objective")
    return found if found.get("kind") else {"kind": "distill"}


def attacks(evidence: Evidence) -> bool:
    """Tell whether the set attacks trained nets, and it is known how well."""
    return aim(evidence).get("kind") == "attack" and "success" in _after(evidence)


def words(evidence: Evidence) -> Html:
    """Say what an attack reaches, as the end of a sentence."""
    success = score(_after(evidence).get("success"))
    reached = percent(success.mean) if success else DASH
    classes = [str(aim(evidence).get(f"{word}_name", "")) for word in ("attack", "target")]
    made = tag("b", reached, cls="ours")
    return join(f"a trained {evidence.net} takes ", made, f" of {classes[0]} for {classes[1]}")


def boxes(evidence: Evidence) -> list[tuple[str, str]]:
    """Return the figures of an attack, each with what it is."""
    found = dict(_figures(evidence, (_after(evidence),)))
    return [(_cell(at), name) for name, (at,) in found.items()][:2]


def table(evidence: Evidence) -> Html | None:
    """Tabulate the figures of nets before and after the steps, and after steps on real images."""
    after = _after(evidence)
    before = mapping(after, "before")
    if not before:
        return None
    random = mapping(mapping(evidence.result, "baselines"), "random")
    rows = [
        tag("tr", tag("th", name), *(tag("td", _cell(at), cls="num") for at in places))
        for name, places in _figures(evidence, (before, after, random))
    ]
    titles = ("", "Before the steps", "After the steps", "After steps on random real images")
    head = tag("tr", *(tag("th", title, cls="num" if title else None) for title in titles))
    return tag(
        "section",
        tag("h2", "What the steps change"),
        tag("p", _note(evidence, score(after)), cls="note"),
        tag("div", tag("table", tag("thead", head), tag("tbody", *rows)), cls="scroll"),
    )


def _after(evidence: Evidence) -> Mapping[str, Any]:
    return mapping(mapping(evidence.result, "accuracy"), evidence.net) if evidence.scores else {}


def _figures(
    evidence: Evidence, places: tuple[Mapping[str, Any], ...]
) -> list[tuple[str, list[Score | None]]]:
    found = aim(evidence)
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
    source = aim(evidence).get("source")
    trained = f"trained on {source}" if source else "trained on the real images"
    kind = {"adapt": f"{trained} before", "attack": f"{trained} before"}
    begun = kind.get(str(aim(evidence).get("kind")), "as they were before the steps")
    nets = plural(n, evidence.net) if n else evidence.net
    return f"Tested: {nets} never seen while distilling, {begun}."


def _cell(found: Score | None) -> str:
    return mean_std(found.mean, found.std, found.n) if found else DASH
