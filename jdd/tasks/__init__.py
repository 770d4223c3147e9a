"""What a set is for: the examples a net sees, what it is tested on, and by which metrics.

A recipe names its task, under ``task`` or, of sets of labelled images, by ``objective``; a recipe
without either is of ``classify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.errors import BadInput
from jdd.tasks.base import Task
from jdd.tasks.classify import ADAPT, CLASSIFY, Attack
from jdd.tasks.retrieval import RETRIEVAL

NAMES = ("classify", "adapt", "attack", "retrieval")
__all__ = ["NAMES", "RETRIEVAL", "Task", "of"]


def of(recipe: Mapping[str, Any]) -> Task:
    """Return the task of a recipe.

    Raises:
      BadInput: a task that this version of jdd does not know.
    """
    objective = recipe.get("objective") or {"kind": "distill"}
    name = recipe.get("task") or {"distill": "classify"}.get(objective["kind"], objective["kind"])
    if name == "attack":
        return Attack(int(objective["attack_class"]), int(objective["target_class"]))
    known: dict[str, Task] = {"classify": CLASSIFY, "adapt": ADAPT, "retrieval": RETRIEVAL}
    if name not in known:
        raise BadInput("recipe.task", repr(name), f"one of {', '.join(NAMES)}")
    return known[name]
