"""Loads and resolves the validated config shared by the command line and the Python API.

``load`` reads a config file and overrides by the schema. ``resolve`` replaces every ``auto`` after
all overrides, so that ``mtt.py:cifar10`` with ``ipc=10`` takes the row of IPC 10.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from jdd.config import files, fitting
from jdd.config.nearest import Size
from jdd.config.rules import auto_depth
from jdd.errors import BadInput, nearest
from jdd.schema import training, values
from jdd.schema.common import COMMON, FALLBACK, Common
from jdd.schema.key import AUTO, checked, show
from jdd.schema.pairs import EVAL, PairConfig
from jdd.schema.values import flat
from jdd.specs.base import Spec
from jdd.storage import json_files

_WRITTEN = "a config.json that jdd wrote"


class Loaded(NamedTuple):
    """A config and its origin.

    Attributes:
      explicit: the keys that were set, in a named file, its argument or an override.
      spec: ``path[:arg]`` of the config file; None for the quick start.
      typed: the explicit keys that were set in the file's argument or an override.
      apart: with ``of_set``, the unparsed values of keys not common to all methods, by name.
    """

    config: Common
    explicit: frozenset[str]
    spec: str | None
    apart: Mapping[str, Any] = MappingProxyType({})
    typed: frozenset[str] = frozenset()

    @property
    def given(self) -> frozenset[str]:
        """The explicit keys but those set to 'auto'."""
        values = flat(self.config)
        return frozenset(n for n in self.explicit if values.get(n) != AUTO)


def load(
    spec: str | Path | None, overrides: Mapping[str, Any] | None = None, of_set: bool = False
) -> Loaded:
    """Return the config of ``spec`` with ``overrides``; 'auto' values stay until ``resolve``.

    Args:
      spec: ``path[:arg]`` of a config file, or the name of a bundled one; None for the quick start,
        whose own values do not count as explicit.
      overrides: values by dotted name, or nested; text as typed, or Python values.
      of_set: the config is for the evaluation of a saved set, whose method determines the keys:
        keys that are not common to all methods are neither validated nor part of the config.

    Raises:
      BadInput: an unknown file, key or method, or an invalid value.
    """
    path, arg = files.split(spec)
    file = files.find(path)
    stated, own = files.call(file, arg)
    given = flat(overrides or {})
    method = given.get("method", stated.get("method", COMMON["method"].default))
    chosen = files.spec_for(str(method), own)
    explicit = set(given) | (set(stated) if spec is not None else set())
    apart: dict[str, Any] = {}
    if of_set:
        apart = {n: v for n, v in {**stated, **given}.items() if n in explicit and n not in COMMON}
        stated, given = ({n: v for n, v in some.items() if n in COMMON} for some in (stated, given))
    try:
        stated = files.checked_values(stated, chosen)
    except BadInput as error:
        raise BadInput(f"{file}: {error.where}", error.found, error.allowed) from None
    text = None if spec is None else str(spec)
    typed = frozenset({*given, *files.argument(arg)})
    return Loaded(fill(chosen, stated, given), frozenset(explicit), text, apart, typed)


def fill(spec: Spec, *given: Mapping[str, Any]) -> Common:
    """Return a method's config: its defaults, its own settings for the dataset, then ``given``.

    Args:
      given: values by dotted name, text as typed or Python values; later ones override earlier.

    Raises:
      BadInput: an unknown key, or an invalid value.
    """
    typed = {n: value for some in given for n, value in files.checked_values(some, spec).items()}
    dataset = typed.get("data.name", spec.keys["data.name"].default)
    return values.build(spec, {**spec.starts.get(dataset, {}), **typed})


def replace(config: Common, new: Mapping[str, Any]) -> Common:
    """Return a copy of ``config`` with some values changed, validated by the schema."""
    typed = files.checked_values(flat(new), config.spec)
    return values.build(config.spec, flat(config) | typed)


def resolve(
    config: Common,
    shape: tuple[int, int, int] | None = None,
    absent: bool = False,
    given: Collection[str] | None = None,
    size: Size | None = None,
) -> tuple[Common, list[str]]:
    """Return ``config`` with every 'auto' replaced, and lines that report the chosen values.

    A dataset of your own has no catalogue entry: its data.dsa stays 'auto' and is chosen by the
    number of channels on loading. net.depth stays 'auto', and names for groups of nets stay
    unexpanded, until ``shape`` (h, w, c) is given. ``absent``: the images are not needed, so no
    path has to exist.

    With ``given``, the keys that are set, a dataset without settings of its own takes those of the
    nearest row (``config.fitting``). That of the user's own does once ``size`` is known, after
    loading; before that the values are the method's defaults.

    Raises:
      BadInput: an unknown dataset, method or net, or incompatible keys.
    """
    from jdd.augment import dsa
    from jdd.nets import groups  # imports JAX, which --help does not need

    _validate_dataset(config)
    fit = fitting.fitted(config, given, size) if given is not None else None
    config = config if fit is None else fit.applied(config)
    nets: object = config.nets
    words = (config.net.name,) if nets == AUTO else config.nets
    pairs = config.spec.task == "retrieval"
    names, net_notes = groups.chosen(config.net.name, words, _shape(config, shape), pairs)
    settled, notes = resolve_auto(config, shape, fit)
    unfitted = fit is None and given is not None and size is None
    unfitted = unfitted and fitting.may_be_fitted(config)
    if unfitted:
        notes = []  # values may be others once the images are loaded, and are validated then
    settled["nets"], notes = names, notes + net_notes
    if settled["data.source"] in ("npz", "folder") and not config.data.path and not absent:
        found = f"empty, and {config.data.name} comes from a {settled['data.source']} source"
        raise BadInput("config.data.path", found, "the file, folder or archive of the images")
    if settled["data.dsa"] != AUTO:
        dsa.names(settled["data.dsa"])
    training.validate(settled)
    if config.spec.validate and not unfitted:
        config.spec.validate(settled)
    return values.build(config.spec, settled), notes


def resolve_auto(
    config: Common, shape: tuple[int, ...] | None = None, fit: fitting.Fitted | None = None
) -> tuple[dict[str, Any], list[str]]:
    """Replace every 'auto' without validation; return values by dotted name, and the notes."""
    from jdd.data.sources.request import source_of

    settled, spec = flat(config), config.spec
    row, note = _row(config) if fit is None else (fit.values, fit.note)
    facts, shape = _facts(config.data.name), _shape(config, shape)
    known: dict[str, Any] = {}
    if facts is not None:
        known["data.dsa"] = facts.dsa
    if shape:
        known["net.depth"] = auto_depth(shape)
    known |= {f"net.{option}": value for option, value in _own_options(config.net.name).items()}
    known["nets"] = (config.net.name,)
    known["data.source"] = source_of(config.data.name, config.data.source, config.data.path)
    row = {name: checked(name, value, spec.keys) for name, value in row.items()}
    defaults = {} if fit is None else spec.defaults  # of keys that the row has not
    defaults = {name: checked(name, value, spec.keys) for name, value in defaults.items()}
    for name, value in (FALLBACK | defaults | known | row).items():
        if settled.get(name) == AUTO and name not in spec.derived:
            settled[name] = value
    for name, rule in spec.derived.items():
        if settled[name] == AUTO:
            settled[name] = rule(settled | {"data.shape": shape})
            if name == "steps" and fit is not None:
                settled[name] = fitting.scaled(settled[name], fit.scale)
    differing = [
        f"{name}={show(settled[name])} (not {show(value)})"
        for name, value in row.items()
        if settled[name] != value
    ]
    listed = row if fit is None else {name: settled[name] for name in row}
    notes = [f"{note}: " + ", ".join(f"{name}={show(value)}" for name, value in listed.items())]
    if differing and fit is None:  # of fitted ones see ``config.changes.sentence``
        notes.append("settings changed from these: " + ", ".join(differing))
    return settled, notes


def _shape(config: Common, shape: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return the (h, w, c) of the nets' input; None if it is unknown before loading."""
    facts, size = _facts(config.data.name), config.data.size
    if shape is None and facts is not None:
        shape = facts.shape
    return (size, size, shape[2] if shape else 3) if size else shape


def _row(config: Common) -> tuple[dict[str, Any], str]:
    """Return the settings that replace 'auto', and a line that states their source."""
    spec, name, ipc = config.spec, config.data.name, config.ipc
    facts = _facts(name)
    settings = facts.settings if facts is not None else name
    if (settings, ipc) in spec.published:
        note = f"settings: {spec.title} row ({settings}, ipc {ipc})"
        if settings != name:
            note += f", applied to {name}"
        return dict(spec.published[settings, ipc]["values"]), note
    if isinstance(config, PairConfig):
        ours = "jdd's own settings" if name in spec.starts else f"the defaults of {spec.title}"
        note = f"settings of {config.pairs} pairs of {name}: {ours}"
        own = spec.starts.get(name, {})
        row = {key: own.get(key, value) for key, value in spec.defaults.items()}
        if config.protocol != "own":
            return row | EVAL[config.protocol], f"{note}, protocol {config.protocol}"
        return EVAL["own"] | row, note
    there = [str(i) for dataset, i in spec.published if dataset == settings]
    rows = f" (its rows: ipc {', '.join(there)})" if there else ""
    own = spec.starts.get(name, {})
    ours = "jdd's own" if own else "its defaults"
    note = f"settings: no published {spec.title} row for {name}, ipc {ipc}{rows}, so {ours}"
    return {key: own.get(key, value) for key, value in spec.defaults.items()}, note


def _facts(name: str) -> Any:
    from jdd.data import catalogue

    return catalogue.lookup(name)


def _own_options(net: str) -> dict[str, Any]:
    """Return the values that replace 'auto' for a net; most nets have their own width and norm."""
    from jdd.nets import OWN

    return OWN.get(net, {})


def _validate_dataset(config: Common) -> None:
    from jdd.data.catalogue import CATALOGUE
    from jdd.data.sources.digits_captions import DATASETS as PAIRED

    name, path, source = config.data.name, config.data.path, config.data.source
    names = ", ".join(CATALOGUE)
    own = "or a name of your own with --config.data.path=..."
    if config.spec.task == "retrieval":
        if not name or name not in PAIRED and not path:
            near = nearest(name, PAIRED)
            hint = f"did you mean {near}? " if near else ""
            found = repr(name) if name else "empty"
            raise BadInput("config.data.name", found, f"{hint}(pairs: {', '.join(PAIRED)}, {own})")
        return
    if not name:
        raise BadInput("config.data.name", "empty", f"a known dataset ({names}), {own}")
    if _facts(name) is None and not path and source not in ("tfds", "hf"):
        near = nearest(name, CATALOGUE)
        hint = f"did you mean {near}? " if near else ""
        found = f"unknown dataset {name!r}"
        raise BadInput("config.data.name", found, f"{hint}(known: {names}; {own})")


def to_json(config: Common) -> str:
    """Return a config as indented JSON, in the order of the schema."""
    found, keys = flat(config), config.spec.keys
    named = (n for n, key in keys.items() if not (key.sparse and found[n] == key.default))
    tree = values.tree({name: found[name] for name in named})
    return json.dumps(tree, indent=2) + "\n"


def stored(path: Path, own: Spec | None = None) -> Common:
    """Return the config of a config.json that jdd wrote; ``own`` as for ``from_json``.

    Raises:
      BadInput: as ``from_json``, or the file is not as it was written.
    """
    remedy = "delete it, and the command that began the run writes it again"
    return from_json(json_files.text(path, remedy), str(path), own)


def from_json(text: str, where: str = "config.json", own: Spec | None = None) -> Common:
    """Return the config that ``to_json`` wrote.

    Args:
      where: the file's name, for messages.
      own: spec of a method outside the package that the file may belong to.

    Raises:
      BadInput: not JSON, or not a config of this version of jdd.
    """
    try:
        found = flat(json_files.parse(text, where, _WRITTEN))
        spec = files.spec_for(str(found["method"]), own)
        filled = {name: checked(name, value, spec.keys) for name, value in found.items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise BadInput(where, f"not a saved config ({error})", _WRITTEN) from None
    except BadInput as error:
        if error.where == where:
            raise BadInput(where, f"not a saved config ({error.found})", _WRITTEN) from None
        raise BadInput(f"{where}: {error.where}", error.found, error.allowed) from None
    return values.build(spec, filled)
