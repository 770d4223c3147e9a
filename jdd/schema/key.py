"""Keys of a config, and conversion of values to their types: every value passes through here.

Keys are declared as fields of frozen dataclasses, one class for each group of keys:

    @dataclass(frozen=True)
    class Config(Common):
        noise: float = option(0.1, "deviation of the noise at the start", minimum=0)

The annotation is the type, the nesting of groups the dotted name, and ``option`` the rest.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from jdd.errors import BadInput, nearest

AUTO = "auto"


class Key(NamedTuple):
    """One key of the config: type, allowed values, default and meaning."""

    type: Any  # int, float, bool, str, or a tuple of str, int or float
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    auto: bool = False  # 'auto' is allowed, and replaced by config.resolve
    resumable: bool = False  # may change when a run is resumed
    minimum: float | None = None
    maximum: float | None = None
    later: bool = False  # newer than some sets: at its default in no identity
    stands: tuple[tuple[str, str], ...] = ()  # synonyms of the choices, in lower case
    above: float | None = None  # exclusive lower bound
    sparse: bool = False  # config.json has it only if it differs from its default
    content: str = ""  # "module:function" of what lies at its path, which is in identities


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


# Annotations of a field, as text, with the type that values are converted to.
_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "tuple[str, ...]": Strings,
    "tuple[int, ...]": tuple[int, ...],
    "tuple[float, ...]": tuple[float, ...],
}
_OPTION = "jdd.option"


def option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    auto: bool = False,
    resumable: bool = False,
    minimum: float | None = None,
    maximum: float | None = None,
    later: bool = False,
    stands: tuple[tuple[str, str], ...] = (),
    above: float | None = None,
    sparse: bool = False,
    content: str = "",
) -> Any:
    """Declare a key as a dataclass field.

    Args:
      default: its value if nothing sets it. ``AUTO`` leaves it to the published table, the dataset
        or a rule; the annotation is the type after ``resolve``.
      help: its meaning, with the unit; printed by ``--help``.
      choices, minimum, maximum, above: the allowed values (``above`` is an exclusive bound).
      auto: 'auto' is allowed though it is not the default.
      resumable: may change when a run is resumed.
      later: newer than saved sets: at its default it is part of no identity.
      stands: synonyms of the choices, in lower case.
      sparse: config.json has it only if it differs from its default.
      content: the value is a path that identities have by its content, "module:function" of
        ``(config) -> digest``. When a run is resumed the path may change, but not come or go.
    """
    settings = Key(
        None,
        default,
        help,
        choices,
        auto,
        resumable,
        minimum,
        maximum,
        later,
        stands,
        above,
        sparse,
        content,
    )
    return dataclasses.field(default=default, metadata={_OPTION: settings})


def like(kind: type, name: str, **changes: Any) -> Any:
    """Declare a key as in ``kind``, with some arguments of ``option`` changed."""
    found = next(f for f in dataclasses.fields(kind) if f.name == name)
    settings: Key = found.metadata[_OPTION]._replace(**changes)
    return dataclasses.field(default=settings.default, metadata={_OPTION: settings})


def group(kind: type, **defaults: Any) -> Any:
    """Declare a group of keys, of the dataclass ``kind``; ``defaults`` replace its own."""
    return dataclasses.field(default_factory=functools.partial(kind, **defaults))


@functools.cache
def keys_of(kind: type) -> MappingProxyType[str, Key]:
    """Return the keys of a dataclass by dotted name, in the order of its fields.

    Raises:
      BadInput: a field has no ``option`` or an annotation that no key can have.
    """
    return MappingProxyType(_keys(kind, kind(), ""))


def _keys(kind: type, defaults: Any, prefix: str) -> dict[str, Key]:
    found: dict[str, Key] = {}
    for field in dataclasses.fields(kind):
        name, value = f"{prefix}{field.name}", getattr(defaults, field.name)
        if field.name.startswith("_"):  # not a key
            continue
        if dataclasses.is_dataclass(value):
            found |= _keys(type(value), value, f"{name}.")
            continue
        where = f"{kind.__module__}.{kind.__qualname__}.{field.name}"
        text = field.type if isinstance(field.type, str) else _named(field.type)
        if _OPTION not in field.metadata:
            raise BadInput(where, "no key", f'{field.name}: {text} = option(default, "help")')
        if text not in _TYPES:
            raise BadInput(where, f"annotated {text}", f"one of {'; '.join(_TYPES)}")
        settings: Key = field.metadata[_OPTION]
        auto = settings.auto or value == AUTO
        found[name] = settings._replace(type=_TYPES[text], default=value, auto=auto)
    return found


def _named(annotation: Any) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)


def coerce(name: str, key: Key, value: Any) -> Any:
    """Convert ``value`` (text or Python value) to the type of ``key``.

    Raises:
      BadInput: naming config.<name>, what was given and what is allowed.
    """
    if key.auto and isinstance(value, str) and value.strip().lower() == AUTO:
        return AUTO
    value = dict(key.stands).get(str(value).strip().lower(), value) if key.stands else value
    try:
        result = _CONVERT[key.type](value)
    except (TypeError, ValueError, OverflowError):
        raise BadInput(f"config.{name}", repr(value), f"expected {allowed(key)}") from None
    low, high = key.minimum, key.maximum
    if key.type in (int, float) and not (
        (low is None or result >= low)
        and (high is None or result <= high)
        and (key.above is None or result > key.above)
    ):
        raise BadInput(f"config.{name}", show(result), f"expected {allowed(key)}")
    if key.choices and result not in key.choices:
        near = nearest(result, key.choices)
        hint = f" (did you mean {near}?)" if near else ""
        raise BadInput(f"config.{name}", repr(result), f"expected {allowed(key)}{hint}")
    return result


def checked(name: str, value: Any, keys: Mapping[str, Key]) -> Any:
    """Convert ``value`` to the type of key ``name``; refuse an unknown name or a wrong value."""
    if name not in keys:
        raise unknown(name, keys)
    return coerce(name, keys[name], value)


def unknown(name: str, keys: Iterable[str]) -> BadInput:
    """Return the error for an unknown key, with the nearest known one."""
    names = list(keys)
    group = [key for key in names if key.startswith(f"{name}.")]
    if group:
        listed = ", ".join(f"config.{key}" for key in group)
        return BadInput(f"config.{name}", "a group of keys, not a key", f"its keys: {listed}")
    leaf = name.rpartition(".")[2]
    same_leaf = [key for key in names if key.rpartition(".")[2] == leaf]
    near = same_leaf[0] if same_leaf else nearest(name, names)
    hint = f"did you mean config.{near}? " if near else ""
    help_line = "(all keys: python -m jdd.main --config=... --help)"
    return BadInput(f"config.{name}", "unknown key", hint + help_line)


def allowed(key: Key) -> str:
    """Return the allowed values of ``key`` in words."""
    words = _TYPE_WORDS[key.type]
    if key.choices:
        words = "one of " + ", ".join(name or "'' (empty)" for name in key.choices)
    elif key.minimum is not None and key.maximum is not None:
        words += f" from {key.minimum:g} to {key.maximum:g}"
    elif key.minimum is not None:
        words += f", {key.minimum:g} or more"
    elif key.above is not None:
        words += f" above {key.above:g}"
    return words + (" (or auto)" if key.auto else "")


def show(value: Any) -> str:
    """Format a value as on the command line."""
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
            value = float(value)  # 1e3 is an integer too
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


def _list(item: Any, value: Any) -> tuple[Any, ...]:
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
