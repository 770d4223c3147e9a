"""Published figures: the accuracy of a setting, and those of other nets on its set.

The tables come from the method's spec (``published``, ``cross`` and ``protocol``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jdd import specs
from jdd.config.rules import auto_depth
from jdd.data.catalogue import lookup
from jdd.schema.common import Common
from jdd.schema.key import AUTO, checked
from jdd.schema.values import flat
from jdd.specs.base import Rows, Spec


def figure(config: Common) -> dict[str, Any] | None:
    """Return the published figure of this setting, or None if there is none.

    ``accuracy`` and ``std`` are fractions; ``source`` cites the paper; ``protocol_differs`` lists
    the keys in which this (resolved) config differs from the published protocol.
    """
    spec, facts = config.spec, lookup(config.data.name)
    row, source = _printed(spec.published, config.data.name, config.ipc)
    if facts is None or not row or row["accuracy"] is None:
        return None
    protocol = {"data.dsa": facts.dsa, "net.depth": auto_depth(facts.shape)} | _ALL_THE_DATA
    protocol |= {**spec.protocol, **row["values"]}
    values = flat(config)
    protocol = {key: checked(key, value, spec.keys) for key, value in protocol.items()}
    differs = [key for key, value in protocol.items() if values[key] not in (value, AUTO)]
    figures = {"accuracy": row["accuracy"], "std": row["std"], "source": source}
    return figures | {"protocol_differs": differs}


def cross(
    method: str, dataset: str, ipc: int, net: str, changed: bool, own: Spec | None = None
) -> dict[str, Any] | None:
    """Return a method's published accuracies by net (``values``: mean, std) and their ``source``.

    None if the method is unknown (``own``: the spec of a method outside jdd), or if its paper has
    no such row for sets distilled with ``net``. ``changed`` means that this net has options that
    the published one had not.
    """
    rows: Rows = specs.get(method).cross if method in specs.names() else {}
    rows = own.cross if own is not None and own.name == method else rows
    row, source = _printed(rows, dataset, ipc)
    if not row or row.get("net", "ConvNet") != net:
        return None
    source += f"; this set's {net} is not theirs" if changed else ""
    found = {name: {"mean": mean, "std": std} for name, (mean, std) in row["values"].items()}
    return {"values": found, "source": source}


def _printed(rows: Rows, dataset: str, ipc: int) -> tuple[Mapping[str, Any] | None, str]:
    """Return the row of a published table for a dataset with as many classes, and its source."""
    facts = lookup(dataset)
    original = lookup(facts.settings) if facts else None
    if facts is None or original is None or original.classes != facts.classes:
        return None, ""
    row = rows.get((facts.settings, ipc))
    if row is None:
        return None, ""
    other = f"; the figure is for {facts.settings} itself, not for {dataset}"
    return row, row["source"] + (other if facts.settings != dataset else "")


# Common to every published table: all of the data at its own size.
_ALL_THE_DATA: dict[str, Any] = {"data.size": 0, "data.val": 0.0}
