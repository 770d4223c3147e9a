"""The text of ``jdd help KEY`` and ``--help=KEY``: one key in all methods."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from jdd import specs
from jdd.config.expected import expected
from jdd.config.files import unknown_key
from jdd.config.resolve import load
from jdd.config.unused import having, validate_used
from jdd.errors import BadInput
from jdd.schema.common import FALLBACK
from jdd.schema.key import AUTO, allowed, checked, show, unknown
from jdd.specs.base import Spec


def key_text(name: str, config: str | None, overrides: Mapping[str, str]) -> str:
    """Return what a key is: meaning, type, allowed values, defaults and published values.

    Args:
      name: the key, with or without ``config.`` in front.
      config: ``path[:arg]`` of a config, whose method alone is described, with the key's value
        there; None for every method of the package.
      overrides: further values of the config, by dotted name.

    Raises:
      BadInput: no such key, or the method does not use it.
    """
    name = name.removeprefix("--").removeprefix("config.").partition("=")[0]
    methods: Sequence[Spec] = having(name)
    here = None
    if config is not None:
        loaded = load(config, overrides)
        own = loaded.config.spec
        validate_used(loaded.config, [name])
        methods = [own] if name in own.keys else []
        here = expected(loaded).here(name) if methods else None
    if not methods:
        raise _unknown(name, config, overrides)
    blocks: dict[tuple[str, str], list[Spec]] = {}  # methods that declare it alike
    for spec in methods:
        key = spec.keys[name]
        blocks.setdefault((key.help, allowed(key)), []).append(spec)
    parts = []
    for (help_line, kind), alike in blocks.items():
        key = alike[0].keys[name]
        lines = [f"{name}: {help_line}" if len(blocks) == 1 else f"{name}, of {_titles(alike)}:"]
        lines += [] if len(blocks) == 1 else [f"  {help_line}"]
        lines += [f"  type: {kind}"]
        lines += ["  may change when a run is resumed"] if key.resumable else []
        lines += ["  its content counts: the path may change on resuming"] if key.content else []
        lines += [f"  {line}" for line in (*_defaults(name, alike), *_starts(name, alike))]
        parts.append("\n".join(lines))
    if here is not None:
        parts[0] += f"\n  here: {here}"
    if rows := _published(name, methods):
        parts.append("published values:\n" + "\n".join(f"  {row}" for row in rows))
    parts.append(f"set it: --config.{name}=VALUE, or --config=NAME:DATASET,{name}=VALUE")
    return "\n".join(
        textwrap.fill(line, 100, subsequent_indent=" " * 6, break_on_hyphens=False)
        for line in "\n\n".join(parts).splitlines()
    )


def _unknown(name: str, config: str | None, overrides: Mapping[str, str]) -> BadInput:
    if config is None:
        every = {key: None for method in specs.names() for key in specs.get(method).keys}
        return unknown(name, every)
    return unknown_key(name, load(config, overrides).config.spec)


def _titles(methods: Sequence[Spec]) -> str:
    everyone = len(specs.names())
    return "every method" if len(methods) == everyone else ", ".join(s.title for s in methods)


def _defaults(name: str, methods: Sequence[Spec]) -> list[str]:
    """Return one line for each default, with the methods that have it."""
    found: dict[str, list[Spec]] = {}
    for spec in methods:
        found.setdefault(_default(name, spec), []).append(spec)
    return [f"default: {value}   ({_titles(alike)})" for value, alike in found.items()]


def _starts(name: str, methods: Sequence[Spec]) -> list[str]:
    """Return one line for each dataset on which jdd has settings of its own for the key."""
    found: dict[str, dict[str, list[Spec]]] = {}
    for spec in methods:
        for dataset, values in spec.starts.items():
            if name in values:
                value = show(checked(name, values[name], spec.keys))
                found.setdefault(dataset, {}).setdefault(value, []).append(spec)
    return [
        f"on {dataset}: "
        + "; ".join(f"{value} ({_titles(alike)})" for value, alike in by_value.items())
        for dataset, by_value in found.items()
    ]


def _default(name: str, spec: Spec) -> str:
    default = spec.keys[name].default
    if default != AUTO:
        return show(default) or "empty"
    if name in spec.derived:
        return "auto: follows from other keys"
    other = spec.defaults.get(name, FALLBACK.get(name, AUTO))
    rows = any(name in row["values"] for row in spec.published.values())
    if other == AUTO:
        return "auto: the published row's, else by the net or the data" if rows else "auto"
    value = show(checked(name, other, spec.keys))
    return f"auto: the published row's, else {value}" if rows else f"auto: {value}"


def _published(name: str, methods: Sequence[Spec]) -> list[str]:
    """Return one line for each method whose published rows set the key."""
    found = []
    for spec in methods:
        rows: dict[str, list[str]] = {}
        for (dataset, ipc), row in spec.published.items():
            if name in row["values"]:
                value: Any = checked(name, row["values"][name], spec.keys)
                rows.setdefault(dataset, []).append(f"ipc {ipc}: {show(value)}")
        found += [f"{spec.title}, {dataset}: {', '.join(row)}" for dataset, row in rows.items()]
    return found
