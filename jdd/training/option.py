"""Declaration of a training option: default, validation, words and printed code in one place.

A class of options is a frozen dataclass whose fields are made by ``option``. Its JSON object, the
validation of a set's recipe, the keys of a config, the report's sentences and the report's code
derive from these declarations. This module imports neither JAX nor NumPy, as config keys must not.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

Numbers = tuple[float, ...]


class Rule(NamedTuple):
    """The allowed values of a recipe entry: as a test, in words, and as data."""

    holds: Callable[[Any], bool]
    words: str
    type: Any = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None


def is_whole(value: Any) -> bool:
    """Return whether a value is an integer (and not a boolean)."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether a value is a finite number (and not a boolean)."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def whole(low: int) -> Rule:
    """Return the rule for integers of at least ``low``."""
    words = f"a whole number, {low} or more"
    return Rule(lambda v: is_whole(v) and v >= low, words, int, minimum=low)


def number(low: float, high: float | None = None) -> Rule:
    """Return the rule for numbers of at least ``low`` and, if given, at most ``high``."""
    words = f"a number, {low:g} or more" if high is None else f"a number from {low:g} to {high:g}"

    def holds(value: Any) -> bool:
        return is_number(value) and low <= value <= (math.inf if high is None else high)

    return Rule(holds, words, float, minimum=low, maximum=high)


def one_of(*names: str) -> Rule:
    """Return the rule for a fixed list of words."""
    words = f"one of {', '.join(names)}"
    return Rule(lambda v: isinstance(v, str) and v in names, words, str, names)


def or_null(rule: Rule) -> Rule:
    """Return a rule that also allows null."""
    return rule._replace(holds=lambda v: v is None or rule.holds(v), words=f"{rule.words}, or null")


ABOVE_0 = Rule(lambda v: is_number(v) and v > 0, "a number above 0", float)
WHOLE = Rule(is_whole, "a whole number", int)
OBJECT = Rule(lambda v: isinstance(v, Mapping), "a JSON object")
TIMES = Rule(
    lambda v: isinstance(v, list | tuple) and bool(v) and all(map(ABOVE_0.holds, v)),
    "a list of numbers above 0",
    Numbers,
)

Say = Callable[[Any], str]
Lines = Callable[[Any], list[str]]


class Option(NamedTuple):
    """One option, except for its mathematics, which is in the trainer.

    Attributes:
      rule: the allowed values of its entry in a recipe; None: it is derived and in no recipe.
      words: ``(options) -> text``, its part of the sentence ``row`` of the report.
      code: by place in the printed PyTorch program, ``(options) -> lines``.
      keys: the config keys that set it.
      help: help of a key generated from this declaration; '' if the key is declared elsewhere.
      later: newer than the first sets: written only if it differs from its default.
      stored: written only for sets of stored labels.
      traced: not part of the compiled program, but an argument or a count.
    """

    rule: Rule | None
    words: Say | None = None
    row: str = ""
    code: Mapping[str, Lines] = {}
    keys: tuple[str, ...] = ()
    help: str = ""
    later: bool = False
    stored: bool = False
    traced: bool = False
    name: str = ""
    default: Any = None


def option(default: Any, rule: Rule | None, **declared: Any) -> Any:
    """Return a dataclass field that is an option; ``declared`` are fields of ``Option``."""
    return dataclasses.field(default=default, metadata={"option": Option(rule, **declared)})


def options(cls: Any) -> tuple[Option, ...]:
    """Return the options of a class, in declaration order."""
    found = [f for f in dataclasses.fields(cls) if "option" in f.metadata]
    return tuple(f.metadata["option"]._replace(name=f.name, default=f.default) for f in found)


def read(cls: Any, found: Mapping[str, Any]) -> Any:
    """Return the options stored in a JSON object; missing ones have their defaults."""
    values = {o.name: found[o.name] for o in options(cls) if o.rule and o.name in found}
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def dump(made: Any) -> dict[str, Any]:
    """Return options as a JSON object, all of them."""
    values = {o.name: getattr(made, o.name) for o in options(type(made)) if o.rule}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def bound(cls: type, name: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of a config group for the options of a class.

    Args:
      name: the group's name, such as "post"; an option with the key "post.decay" is read from
        "decay".
      group: the values by the last part of their keys; missing keys are omitted.
    """
    found: dict[str, Any] = {}
    for one in options(cls):
        for key in one.keys:
            leaf = key.removeprefix(f"{name}.")
            if leaf != key and leaf in group:
                value = group[leaf]
                found[one.name] = tuple(value) if one.rule and one.rule.type is Numbers else value
    return found


def figure(value: Any) -> str:
    """Format a number for the report: 5000, 0.0102, 1e-07; other values unchanged."""
    if not is_number(value):
        return str(value)
    short = value == int(value) and abs(value) < 1e7
    return str(int(value)) if short else f"{value:.6g}"


def listed(words: Iterable[str]) -> str:
    """Join words as 'a, b and c'."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
