"""Keys of the methods that runs of a comparison have changed, from their config.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jdd import specs
from jdd.schema.common import COMMON
from jdd.schema.experts import EXPERTS_ONLY
from jdd.schema.key import show
from jdd.schema.values import flat

_APART = ("experts.dir", "squeeze.dir")  # where files lie


def differing(
    runs: Sequence[tuple[str, str, Mapping[str, Any]]],
) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return the keys of a method in which its runs differ: the runs' names, by key and value.

    Runs of different methods are not compared: their keys have other meanings and defaults. Steps
    and the keys of experts count as a method's own. With several methods a key is followed by its
    method's title.

    Args:
      runs: (name, method, content of config.json) of each run.
    """
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    methods = dict.fromkeys(method for _, method, _ in runs)
    for method in methods:
        own = [(name, flat(config)) for name, of, config in runs if of == method and config]
        for key in dict.fromkeys(key for _, values in own for key in values):
            if not _of_method(key, method):
                continue
            by_value: dict[str, tuple[str, ...]] = {}
            for name, values in own:
                value = _value(key, method, values)
                by_value[value] = (*by_value.get(value, ()), name)
            if len(by_value) > 1:
                title = f" ({specs.title(method)})" if len(methods) > 1 else ""
                found[key + title] = by_value
    return found


def _of_method(key: str, method: str) -> bool:
    """Return whether a key is the method's own and changes its images, as no resumable one does."""
    if key == "steps":
        return True
    known = specs.get(method).keys if method in specs.names() else {}
    free = key in known and known[key].resumable
    return (key not in COMMON or key in EXPERTS_ONLY) and not free and key not in _APART


def _value(key: str, method: str, values: Mapping[str, Any]) -> str:
    """Return a value as text; a key that config.json leaves out has its default."""
    if key in values:
        return show(values[key]) or "empty"
    spec = specs.get(method) if method in specs.names() else None
    if spec is None or key not in spec.keys:
        return "not known"
    return show(spec.keys[key].default) or "empty"
