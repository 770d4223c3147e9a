"""Steps back of a run that diverged, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jdd.report.evidence import Evidence, mapping, real
from jdd.report.html import number


def sentence(found: Mapping[str, Any]) -> str:
    """Return one step back in words, by its entry in a recipe's ``steps_back``."""
    rates = []
    for name, pair in mapping(found, "rates").items():
        before, after = (real(value) for value in pair) if _is_pair(pair) else (None, None)
        if before is not None and after is not None:
            rates.append(f"{name} {number(after)} in place of {number(before)}")
    changed = f" with {' and '.join(rates)}" if rates else ""
    return (
        f"Diverged at step {found.get('step')} ({found.get('cause')}): "
        f"went back to step {found.get('to')}{changed}"
    )


def sentences(evidence: Evidence) -> list[str]:
    """Return the steps back of every seed of a run, in words; [] if there are none."""
    by_seed = mapping(evidence.result, "steps_back") or {
        evidence.known("seed"): mapping(evidence.recipe, "steps_back")
    }
    found = []
    for seed in by_seed:
        taken = mapping(by_seed, seed).get("taken")
        for one in taken if isinstance(taken, Sequence) else ():
            if isinstance(one, Mapping):
                named = f"Seed {seed}: " if len(by_seed) > 1 else ""
                found.append(named + sentence(one))
    return found


def _is_pair(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2
