"""Types of a recipe's entries, checked when a set is read.

A recipe is JSON that anyone may have written. Values of the training options have rules of their
own (``training/recipe.py``), which ``evaluation/rules.py`` applies; here are the types on which
loading, printing, exporting and reporting a set rely. An entry that is not there, or null, has its
default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jdd.errors import BadInput

_LARGEST = 2**63  # of whole numbers: beyond it neither floats nor arrays hold them
_DEEPEST = 32


class _Type(NamedTuple):
    words: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _all(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


TEXT = _Type("a text", lambda v: isinstance(v, str))
NUMBER = _Type("a number", _is_number)
WHOLE = _Type("a whole number", lambda v: _is_number(v) and float(v).is_integer())
SWITCH = _Type("true or false", lambda v: isinstance(v, bool))
OBJECT = _Type("a JSON object", lambda v: isinstance(v, Mapping))
TEXTS = _Type("a list of texts", lambda v: _all(v, TEXT.holds))
NUMBERS = _Type("a list of numbers", lambda v: _all(v, _is_number))
RATES = _Type("a number or a list of numbers", lambda v: _is_number(v) or NUMBERS.holds(v))

TYPES: dict[str, _Type] = {
    **dict.fromkeys(("schema", "seed", "ipc", "steps", "pairs"), WHOLE),
    **dict.fromkeys(
        ("jdd_version", "method", "title", "dataset", "whitening", "selection", "fingerprint",
         "command", "data_fingerprint", "weights_digest", "task"),
        TEXT,
    ),
    **dict.fromkeys(("class_names", "captions"), TEXTS),
    **dict.fromkeys(
        ("net", "train", "augment", "normalisation", "labels", "full", "data", "text", "towers",
         "lora", "objective", "diverged", "probe", "wrong_labels"),
        OBJECT,
    ),
    **dict.fromkeys(("net.name", "augment.name", "augment.strategy", "labels.kind", "labels.store",
                     "train.init.kind", "train.optimizer", "train.loss", "train.order"), TEXT),
    **dict.fromkeys(("net.options", "train.init", "train.drop", "train.schedule"), OBJECT),
    **dict.fromkeys(("train.momentum", "train.weight_decay"), NUMBER),
    **dict.fromkeys(("train.epochs", "train.passes", "train.steps", "train.batch"), WHOLE),
    **dict.fromkeys(("normalisation.mean", "normalisation.std"), NUMBERS),
    "augment.align_corners": SWITCH,
    "train.lr": RATES,
}  # fmt: skip


def validate(recipe: Mapping[str, Any], where: str) -> None:
    """Refuse a recipe with an entry of another type.

    Raises:
      BadInput: naming the entry, its value and what is allowed.
    """
    _validate_size(recipe, where)
    for name, wanted in TYPES.items():
        *parents, last = name.split(".")
        at: Any = recipe
        for parent in parents:
            at = at.get(parent) if isinstance(at, Mapping) else None
        value = at.get(last) if isinstance(at, Mapping) else None
        if value is not None and not wanted.holds(value):
            raise BadInput(where, f"recipe.{name} is {value!r:.80}", f"{wanted.words} is needed")


def _validate_size(recipe: Mapping[str, Any], where: str) -> None:
    """Refuse numbers that no array holds, and nesting that no recipe has."""
    level: list[Any] = [recipe]
    for _ in range(_DEEPEST):
        below: list[Any] = []
        for value in level:
            if isinstance(value, Mapping):
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif type(value) is int and abs(value) >= _LARGEST:
                raise BadInput(where, "a whole number of the recipe is beyond 2^63", "smaller ones")
        if not below:
            return
        level = below
    raise BadInput(where, f"its recipe is nested more than {_DEEPEST} deep", "a set saved by jdd")
