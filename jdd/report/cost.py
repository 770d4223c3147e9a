"""Cost of a run: seconds by stage, memory, device and versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdd.report import plain
from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import THIN, duration, percent, plural, size
from jdd.report.training import COLOURS, process_bytes, seconds_of, stall, temporaries


class Part(NamedTuple):
    """A stage as a part of a bar: CSS class of its colour, width in percent, words on hover."""

    css: str
    width: str
    title: str


class Key(NamedTuple):
    """A stage in the legend of the bar."""

    css: str
    name: str
    seconds: str
    stall: str


class Cost(NamedTuple):
    """The section's values; ``facts`` are (name, value)."""

    bar: list[Part]
    keys: list[Key]
    facts: list[tuple[str, str]]


def section(evidence: Evidence) -> Cost | None:
    """Return the run's cost; None if none of it is known."""
    seconds, facts = seconds_of(evidence), _facts(evidence)
    if not seconds and not facts:
        return None
    order = list(seconds)
    keys = [
        Key(colour(name, order), name, duration(s), stall(evidence, name))
        for name, s in seconds.items()
    ]
    return Cost(bar(seconds, order), keys, facts)


def bar(seconds: Mapping[str, float], order: Sequence[str], longest: float = 0.0) -> list[Part]:
    """Return seconds by stage as parts of one bar.

    Args:
      seconds: by stage.
      order: stages in the order of their colours.
      longest: seconds of the full width; 0 for the sum.
    """
    whole = longest or sum(seconds.values()) or 1.0
    return [
        Part(colour(name, order), f"{100 * s / whole:.2f}%", f"{name} {duration(s)}")
        for name, s in seconds.items()
    ]


def colour(stage: str, order: Sequence[str]) -> str:
    """Return the CSS class of a stage's colour."""
    return f"s{order.index(stage) % COLOURS}"


def _facts(evidence: Evidence) -> list[tuple[str, str]]:
    result, facts = evidence.result, []
    trained = [row for row in evidence.rows if row["stage"] == "experts"]
    reached = [v for row in trained if (v := real(row.get("accuracy"))) is not None]
    if reached:
        epochs = [e for row in trained if (e := real(row.get("epoch")))]
        after = f" after {plural(round(epochs[-1]), 'epoch')}" if epochs else ""
        facts.append(("Experts' test accuracy", f"{percent(reached[-1])}{after}"))
    if weight := plain.weight(stored := mapping(result, "bytes")):
        facts.append(("Bytes of the set", f"{weight}: {plain.parts(stored)}"))
    peak = process_bytes(evidence)
    if peak:
        facts.append(("Memory, process at most", size(peak)))
    for stage, count in temporaries(evidence).items():
        facts.append((f"Memory, XLA temporaries of {stage}", size(count)))
    if result.get("device"):
        facts.append(("Device", _words(result["device"])))
    if result.get("versions"):
        facts.append(("Versions", _words(result["versions"])))
    return facts


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}{THIN}{_words(v)}" for k, v in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return str(value)
