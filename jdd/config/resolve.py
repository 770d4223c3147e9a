"""One validated config for the command line and the Python API.

``load`` reads a config file and overrides by the schema, ``resolve`` replaces every ``auto`` once
all overrides are in, so that ``mtt.py:cifar10`` with ``ipc=10`` takes the row of IPC 10.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdd.config import files, keys_training
from jdd.config.files import (
    bundled,
    config_dir,
    flat,
    from_arg,
    method_file,
    nested,
    schema,
    stage_names,
)
from jdd.config.keys import COMMON
from jdd.config.rules import auto_depth
from jdd.config.schema import AUTO, Key, show
from jdd.config.titles import title
from jdd.errors import BadInput, nearest

__all__ = [
    "AUTO", "COMMON", "Change", "Key", "Loaded", "bundled", "changed", "check_resume", "config_dir",
    "default_workdir", "flat", "from_arg", "from_json", "load", "method_file",
    "replace", "resolve", "schema", "resolve_auto", "stage_names", "to_json",
]  # fmt: skip

# What 'auto' means where neither a method nor a dataset says otherwise. An eval.lr of 0 is the
# rate the set has learned, which is not known before it is distilled.
_FALLBACK: dict[str, Any] = {
    "steps": 1000,
    "data.zca": "none",
    "net.init": "torch",
    "eval.epochs": 1000,
    "eval.lr": 0.0,
    "baselines.full_epochs": 50,
    "experts.epochs": 50,
}


class Loaded(NamedTuple):
    """A config, the keys somebody set (in a named file, its argument or an override), its spec."""

    config: ConfigDict
    explicit: frozenset[str]
    spec: str | None


def load(spec: str | Path | None, overrides: Mapping[str, Any] | None = None) -> Loaded:
    """Return the config of ``spec`` with ``overrides``; 'auto' values stay until ``resolve``.

    Args:
      spec: ``path[:arg]`` of a config file, a bundled one by name too; None for the quick start,
        whose own values do not count as explicit.
      overrides: values by dotted name, or nested; text as typed, or Python values.

    Raises:
      BadInput: an unknown file, key or method, or a value that does not fit its key.
    """
    path, arg = files.split(spec)
    file = files.find(path)
    values = files.call(file, arg)
    given = flat(overrides or {})
    method = given.get("method", values.get("method", COMMON["method"].default))
    keys = schema(str(method))
    dataset = str(given.get("data.name", values.get("data.name", "")))
    filled = {name: key.default for name, key in keys.items()} | _starts(str(method), dataset)
    for name, value in values.items():
        try:
            filled[name] = files.checked(name, value, keys)
        except BadInput as error:
            raise BadInput(f"{file}: {error.where}", error.found, error.allowed) from None
    for name, value in given.items():
        filled[name] = files.checked(name, value, keys)
    explicit = set(given) | (set(values) if spec is not None else set())
    return Loaded(_locked(filled), frozenset(explicit), None if spec is None else str(spec))


def _starts(method: str, dataset: str) -> dict[str, Any]:
    """Return a method's own settings for a dataset that no paper has, by dotted name."""
    return dict(getattr(method_file(method), "STARTS", {}).get(dataset, {}))


def replace(config: ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Return a copy of ``config`` with some values changed, checked by the schema."""
    keys = schema(config.method)
    new = {name: files.checked(name, value, keys) for name, value in flat(values).items()}
    return _locked(flat(config) | new)


def _locked(values: Mapping[str, Any]) -> ConfigDict:
    return nested(values).lock()


def resolve(
    config: ConfigDict, shape: tuple[int, int, int] | None = None, absent: bool = False
) -> tuple[ConfigDict, list[str]]:
    """Return ``config`` with every 'auto' replaced, and lines that say what was taken.

    A dataset of your own has no facts: its data.dsa stays 'auto' and is chosen by the channels on
    loading; net.depth stays 'auto', and a word for several nets a word, until ``shape`` (h, w, c)
    is given. ``absent`` says that the images are not needed: no path has to be there.

    Raises:
      BadInput: an unknown dataset, method or net, or keys that do not go together.
    """
    from jdd.augment import dsa
    from jdd.nets import groups  # with JAX, which --help does not wait for

    _check_dataset(config)
    names, told = groups.chosen(config.net.name, config.nets, _shape(config, shape))
    values, notes = resolve_auto(config, shape)
    values["nets"], notes = names, notes + told
    if values["data.source"] in ("npz", "folder") and not config.data.path and not absent:
        found = f"empty, and {config.data.name} comes from a {values['data.source']} source"
        raise BadInput("config.data.path", found, "the file, folder or archive of the images")
    if values["data.dsa"] != AUTO:
        dsa.names(values["data.dsa"])
    keys_training.check(values)
    check = getattr(method_file(config.method), "check", None)
    if check:
        check(values)
    return _locked(values), notes


def resolve_auto(
    config: ConfigDict, shape: tuple[int, ...] | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Replace every 'auto' without checking anything; values by dotted name, and the notes."""
    from jdd.data.sources.request import source_of

    values, module = flat(config), method_file(config.method)
    row, note = _row(config)
    facts, shape = _facts(config.data.name), _shape(config, shape)
    known: dict[str, Any] = {}
    if facts is not None:
        known["data.dsa"] = facts.dsa
    if shape:
        known["net.depth"] = auto_depth(shape)
    known |= {f"net.{option}": value for option, value in _own_options(config.net.name).items()}
    known["data.source"] = source_of(config.data.name, config.data.source, config.data.path)
    keys = schema(config.method)
    row = {name: files.checked(name, value, keys) for name, value in row.items()}
    for name, value in (_FALLBACK | known | row).items():
        if values.get(name) == AUTO and name not in getattr(module, "DERIVED", {}):
            values[name] = value
    for name, rule in getattr(module, "DERIVED", {}).items():
        if values[name] == AUTO:
            values[name] = rule(values | {"data.shape": shape})
    differing = [
        f"{name}={show(values[name])} (not {show(value)})"
        for name, value in row.items()
        if values[name] != value
    ]
    notes = [f"{note}: " + ", ".join(f"{name}={show(value)}" for name, value in row.items())]
    if differing:
        notes.append("settings changed from these: " + ", ".join(differing))
    return values, notes


def _shape(config: ConfigDict, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the images' (h, w, c) as nets take them, None where only loading will tell."""
    facts, size = _facts(config.data.name), config.data.size
    if shape is None and facts is not None:
        shape = facts.shape
    return (size, size, shape[2] if shape else 3) if size else shape


def _row(config: ConfigDict) -> tuple[dict[str, Any], str]:
    """Return the settings that 'auto' stands for, and a line that says where they are from."""
    module = method_file(config.method)
    name, ipc = config.data.name, config.ipc
    facts = _facts(name)
    settings = facts.settings if facts is not None else name
    table = getattr(module, "PUBLISHED", {})
    label = title(config.method)
    if (settings, ipc) in table:
        note = f"settings: {label} row ({settings}, ipc {ipc})"
        if settings != name:
            note += f", applied to {name}"
        return table[settings, ipc]["values"], note
    there = [str(i) for dataset, i in table if dataset == settings]
    rows = f" (its rows: ipc {', '.join(there)})" if there else ""
    own = _starts(config.method, name)
    ours = "jdd's own" if own else "its defaults"
    note = f"settings: no published {label} row for {name}, ipc {ipc}{rows}, so {ours}"
    return module.DEFAULTS | {key: own[key] for key in module.DEFAULTS if key in own}, note


def _facts(name: str) -> Any:
    from jdd.data import catalogue

    return catalogue.lookup(name)


def _own_options(net: str) -> dict[str, Any]:
    """Return what 'auto' is for a net; most nets have widths and norms of their own."""
    from jdd.nets import OWN

    return OWN.get(net, {})


def _check_dataset(config: ConfigDict) -> None:
    from jdd.data.catalogue import CATALOGUE

    name, path, source = config.data.name, config.data.path, config.data.source
    names = ", ".join(CATALOGUE)
    own = "or a name of your own with --config.data.path=..."
    if not name:
        raise BadInput("config.data.name", "empty", f"a known dataset ({names}), {own}")
    if _facts(name) is None and not path and source != "tfds":
        near = nearest(name, CATALOGUE)
        hint = f"did you mean {near}? " if near else ""
        found = f"unknown dataset {name!r}"
        raise BadInput("config.data.name", found, f"{hint}(known: {names}; {own})")


def default_workdir(config: ConfigDict, spec: str | Path | None) -> str:
    """Return ``runs/<config>-<dataset>-ipc<n>-s<seed>``."""
    stem = Path(files.split(spec)[0]).name.removesuffix(".py")
    words = f"{stem}-{config.data.name}-ipc{config.ipc}-s{config.seed}"
    return "runs/" + re.sub(r"[^\w.+-]+", "_", words)


def to_json(config: ConfigDict) -> str:
    """Return a config as indented JSON, in the order of the schema."""
    values, keys = flat(config), schema(config.method)
    named = (n for n, key in keys.items() if not (key.sparse and values[n] == key.default))
    tree = files.tree({name: values[name] for name in named})
    return json.dumps(tree, indent=2) + "\n"


def from_json(text: str, where: str = "config.json") -> ConfigDict:
    """Return the config that ``to_json`` wrote.

    Raises:
      BadInput: not JSON, or not a config of this version of jdd.
    """
    try:
        values = flat(json.loads(text))
        keys = schema(str(values["method"]))
        filled = {name: files.checked(name, value, keys) for name, value in values.items()}
    except (ValueError, AttributeError, KeyError) as error:
        raise BadInput(
            where, f"not a saved config ({error})", "a config.json that jdd wrote"
        ) from None
    except BadInput as error:
        raise BadInput(f"{where}: {error.where}", error.found, error.allowed) from None
    return _locked({name: key.default for name, key in keys.items()} | filled)


class Change(NamedTuple):
    """A key whose value is not what was saved."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"config.{self.name} was {show(self.old)}, now {show(self.new)}"


def changed(
    saved: Mapping[str, Any], config: ConfigDict, free: Collection[str] = ()
) -> tuple[list[Change], list[Change]]:
    """Return the keys that differ from a saved config: those that may not change, those that may.

    Both sides are resolved configs; a key that one side lacks counts as at its default. ``free``
    are keys that may change here, beside the resumable ones.
    """
    keys = schema(config.method)
    old, new = flat(saved), flat(config)
    refused: list[Change] = []
    accepted: list[Change] = []
    for name in {**keys, **old}:
        default = keys[name].default if name in keys else None
        before, after = old.get(name, default), new.get(name, default)
        before = tuple(before) if isinstance(before, list) else before
        # 'auto' is what only the data will settle: it is checked again once they are loaded.
        if name not in old and before == AUTO or after in (before, AUTO):
            continue
        may = name in free or name in keys and keys[name].resumable
        (accepted if may else refused).append(Change(name, before, after))
    return refused, accepted


def check_resume(
    saved: Mapping[str, Any], config: ConfigDict, workdir: str = "", free: Collection[str] = ()
) -> list[Change]:
    """Return what has changed since ``saved`` and may; refuse anything else.

    Raises:
      BadInput: listing the changed keys, and the keys that may change.
    """
    refused, accepted = changed(saved, config, free)
    if refused:
        keys = [name for name, key in schema(config.method).items() if key.resumable]
        raise BadInput(
            f"--workdir={workdir}" if workdir else "--workdir",
            "it holds a run of another config: " + ", ".join(map(str, refused)),
            "set them back, or name another --workdir; on resuming may change: " + ", ".join(keys),
        )
    return accepted
