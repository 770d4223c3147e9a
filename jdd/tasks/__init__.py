"""What a set is for: the examples a net sees, what it is tested on, and by which metrics.

A recipe names its task, under ``task`` or, of sets of labelled images, by ``objective``; a recipe
without either is of ``classify``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd.errors import BadInput
from jdd.evaluation import rules
from jdd.tasks.base import Task
from jdd.tasks.classify import ADAPT, CLASSIFY, Attack
from jdd.tasks.retrieval import RETRIEVAL

NAMES = rules.TASKS
__all__ = ["NAMES", "RETRIEVAL", "Task", "named_objective", "objective", "of"]


def objective(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set's objective: kind distill, adapt (with source) or attack (with both classes).

    It is stored in ``recipe["objective"]`` (``jdd/methods/dd.py:objective_of``); the default is to
    train nets.
    """
    return dict(recipe.get("objective") or {"kind": "distill"})


def named_objective(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a set's objective; an attack's classes include their names."""
    aim, names = objective(recipe), recipe["class_names"]
    if aim["kind"] == "attack":
        for word in ("attack", "target"):
            aim[f"{word}_name"] = str(names[int(aim[f"{word}_class"])])
    return aim


def of(recipe: Mapping[str, Any]) -> Task:
    """Return the task of a recipe.

    Raises:
      BadInput: a task that this version of jdd does not know.
    """
    aim = objective(recipe)
    name = recipe.get("task") or {"distill": "classify"}.get(aim["kind"], aim["kind"])
    if name == "attack":
        return Attack(int(aim["attack_class"]), int(aim["target_class"]))
    known: dict[str, Task] = {"classify": CLASSIFY, "adapt": ADAPT, "retrieval": RETRIEVAL}
    if name not in known:
        raise BadInput("recipe.task", repr(name), f"one of {', '.join(NAMES)}")
    return known[name]
