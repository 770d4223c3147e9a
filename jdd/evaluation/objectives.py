"""The objective of a set: to train nets, to adapt trained nets, or to attack them.

It is stored in ``recipe["objective"]`` (``jdd/methods/dd.py:objective_of``); the default is to
train nets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set's objective: kind distill, adapt (with source) or attack (with both classes)."""
    return dict(recipe.get("objective") or {"kind": "distill"})


def named(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set's objective; an attack's classes include their names."""
    aim, names = of(recipe), recipe["class_names"]
    if aim["kind"] == "attack":
        for word in ("attack", "target"):
            aim[f"{word}_name"] = str(names[int(aim[f"{word}_class"])])
    return aim
