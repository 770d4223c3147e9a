"""The early end of a run whose accuracy on held-out images was flat, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.report.evidence import real
from jdd.report.html import number


def sentence(found: Mapping[str, Any]) -> str:
    """Return why a run ended early, by its recipe's ``stopped``: '300 of 1000: ...'."""
    best, spread = real(found.get("best")), real(found.get("spread"))
    reached = "" if best is None else f" the {100 * best:.1f} % of step {found.get('best_step')}"
    more = "" if spread is None else f" by more than the spread of nets ({100 * spread:.1f} %)"
    return (
        f"{number(real(found.get('step')) or 0)} of {number(real(found.get('of')) or 0)}: on "
        f"held-out images the last {found.get('points')} points of the curve are not above"
        f"{reached}{more}"
    )
