"""The config of a run that is there already, by its directory."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from jdd import specs
from jdd.config import fitting
from jdd.config.resolve import Loaded, replace, stored
from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.values import flat
from jdd.storage import json_files


def of_run(directory: Path, overrides: Mapping[str, Any]) -> Loaded:
    """Return the config of the run in ``directory`` with ``overrides``, the only explicit keys.

    Raises:
      BadInput: its config.json is damaged, or is of a method outside the package; an unknown key or
        an invalid value.
    """
    path = directory / "config.json"
    method = (json_files.recall(path) or {}).get("method")
    if isinstance(method, str) and method not in specs.names():
        found = f"a run of {method}, a method outside jdd"
        raise BadInput(str(path), found, "--config=FILE with it, the file that defines the method")
    config = replace(stored(path), overrides)
    given = frozenset(flat(overrides))
    return Loaded(config, given, config.method, typed=given)


def as_begun(config: Common, given: Collection[str], workdir: Path) -> Common | None:
    """Return ``config`` with the fitted settings of the run in ``workdir``; None if none is there.

    A run goes on with the settings that it began with, whatever the nearest row is now: nothing is
    fitted to it any more.

    Args:
      given: keys that keep their values.

    Raises:
      BadInput: its config.json is not a config of this version of jdd.
    """
    path = workdir / "config.json"
    if not path.exists() or not fitting.may_be_fitted(config):
        return None
    saved = stored(path, config.spec)
    if saved.method != config.method:
        return None
    old = flat(saved)
    return replace(config, {name: old[name] for name in fitting.names(config) - {*given}})


def command_of(directory: Path) -> str:
    """Return the command that result.json in ``directory`` records; '' if there is none."""
    found = (json_files.recall(directory / "result.json") or {}).get("command")
    return found if isinstance(found, str) else ""
