"""Values of a config in three forms: nested, by dotted names, and as the typed config."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar

from jdd.schema.common import Common

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from jdd.specs.base import Spec

T = TypeVar("T")


def is_mapping(value: object) -> TypeGuard[Mapping[str, Any] | ConfigDict]:
    """Return whether a value is a mapping or a ConfigDict.

    ml_collections takes 0.1 s to import and ``--help`` does without: until something has imported
    it, no value is a ConfigDict.
    """
    library = sys.modules.get("ml_collections")
    return isinstance(value, Mapping) or (
        library is not None and isinstance(value, library.ConfigDict)
    )


def flat(values: Mapping[str, Any] | ConfigDict | Common, prefix: str = "") -> dict[str, Any]:
    """Return nested values, or those of a typed config, by their dotted names."""
    items: Mapping[str, Any]
    if dataclasses.is_dataclass(values):
        items = section(values)
    else:
        items = values if isinstance(values, Mapping) else values.to_dict()
    out: dict[str, Any] = {}
    for name, value in items.items():
        if is_mapping(value) or dataclasses.is_dataclass(value):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def section(group: Any) -> dict[str, Any]:
    """Return the values of a group of a typed config by name, in alphabetical order.

    Recipes on disk have this order.
    """
    names = sorted(f.name for f in dataclasses.fields(group) if not f.name.startswith("_"))
    return {name: getattr(group, name) for name in names}


def tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted names as nested dicts; a key and a group never share a name here."""
    root: dict[str, Any] = {}
    for name, value in values.items():
        *groups, leaf = name.split(".")
        node = root
        for group in groups:
            node = node.setdefault(group, {})
        node[leaf] = value
    return root


def nested(values: Mapping[str, Any]) -> ConfigDict:
    """Return dotted names as a nested ConfigDict, as config files return it."""
    from ml_collections import ConfigDict

    # Not type safe: numbers replace 'auto'. The schema enforces the types.
    return ConfigDict(tree(values), type_safe=False)


def build(spec: Spec, values: Mapping[str, Any]) -> Common:
    """Return the typed config of a method.

    Args:
      spec: of the method; the config carries it.
      values: by dotted name, already of the types of their keys; missing ones take their default.
    """
    return _filled(spec.config(_spec=spec), tree({"method": spec.name, **values}))


def _filled(group: T, values: Mapping[str, Any]) -> T:
    changes = {}
    for name, value in values.items():
        inner = getattr(group, name)
        changes[name] = _filled(inner, value) if dataclasses.is_dataclass(inner) else value
    return dataclasses.replace(group, **changes)  # type: ignore[type-var]
