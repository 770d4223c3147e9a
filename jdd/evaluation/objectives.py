"""What a set is for: training nets, adapting trained ones, or attacking them.

``recipe["objective"]`` says what a set is for (``jdd/methods/dd.py:objective_of``); a recipe that
does not say it is to train nets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a set is for: kind distill, adapt (with source) or attack (with both classes)."""
    return dict(recipe.get("objective") or {"kind": "distill"})


def named(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a set is for, the classes of an attack with their names too."""
    aim, names = of(recipe), recipe["class_names"]
    if aim["kind"] == "attack":
        for word in ("attack", "target"):
            aim[f"{word}_name"] = str(names[int(aim[f"{word}_class"])])
    return aim
