"""What a key of a config is, and how a value becomes one: every value passes through here."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

from jdd.errors import BadInput, nearest

AUTO = "auto"


class Key(NamedTuple):
    """One key of the config: what it may hold, what it holds by default, what it means."""

    type: Any  # int, float, bool, str, tuple[str, ...], tuple[int, ...] or tuple[float, ...]
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    auto: bool = False  # 'auto' is allowed, and replaced by config.resolve
    resumable: bool = False  # may change when a run is started again
    minimum: float | None = None
    maximum: float | None = None
    later: bool = False  # newer than sets that were made: at its default in no identity
    stands: tuple[tuple[str, str], ...] = ()  # other words for the choices, in lower case
    above: float | None = None  # more than this, which itself is not allowed
    sparse: bool = False  # config.json names it only where it is not at its default


Strings = tuple[str, ...]
_TYPE_WORDS = {
    int: "an integer",
    float: "a number",
    bool: "true or false",
    str: "text",
    Strings: "a list of names, separated by commas",
    tuple[int, ...]: "a list of integers, separated by commas",
    tuple[float, ...]: "a list of numbers, separated by commas",
}
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def coerce(name: str, key: Key, value: Any) -> Any:
    """Return ``value`` (text or Python value) as the type of ``key``.

    Raises:
      BadInput: naming config.<name>, what was given and what is allowed.
    """
    if key.auto and isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    value = dict(key.stands).get(str(value).strip().lower(), value) if key.stands else value
    try:
        result = _CONVERT[key.type](value)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"config.{name}", repr(value), allowed(key)) from None
    low, high = key.minimum, key.maximum
    if key.type in (int, float) and not (
        (low is None or result >= low)
        and (high is None or result <= high)
        and (key.above is None or result > key.above)
    ):
        raise BadInput(f"config.{name}", show(result), allowed(key))
    if key.choices and result not in key.choices:
        near = nearest(result, key.choices)
        hint = f" (did you mean {near}?)" if near else ""
        raise BadInput(f"config.{name}", repr(result), allowed(key) + hint)
    return result


def allowed(key: Key) -> str:
    """Say in words what ``key`` may hold."""
    words = _TYPE_WORDS[key.type]
    if key.choices:
        words = "one of " + ", ".join(key.choices)
    elif key.minimum is not None and key.maximum is not None:
        words += f" from {key.minimum:g} to {key.maximum:g}"
    elif key.minimum is not None:
        words += f", {key.minimum:g} or more"
    elif key.above is not None:
        words += f" above {key.above:g}"
    return words + (" (or auto)" if key.auto else "")


def show(value: Any) -> str:
    """Write a value as one would type it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(str(v) for v in value)
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return short if not isinstance(value, float) or float(short) == value else repr(value)


def _int(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError:
            value = float(value)  # 1e3 is a fair way to write a thousand
    if int(value) != value:
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    return float(value)


def _bool(value: Any) -> bool:
    word = str(value).strip().lower()
    if word not in TRUE + FALSE:
        raise ValueError
    return word in TRUE


def _str(value: Any) -> str:
    if not isinstance(value, str | os.PathLike):
        raise TypeError
    return os.fspath(value).strip()


def _list(item: Any, value: Any) -> tuple:
    if isinstance(value, str):
        value = value.strip().strip("[]()").split(",")
        value = [part.strip().strip("'\"") for part in value if part.strip()]
    result = tuple(item(part) for part in value)
    if not result:
        raise ValueError
    return result


_CONVERT: dict[Any, Any] = {
    int: _int,
    float: _float,
    bool: _bool,
    str: _str,
    Strings: lambda value: tuple(dict.fromkeys(_list(_str, value))),  # each name once
    tuple[int, ...]: lambda value: _list(_int, value),
    tuple[float, ...]: lambda value: _list(_float, value),
}
