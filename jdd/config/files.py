"""Config files: where they are, running them, and the argument behind the colon.

A config file is a Python module with ``get_config(arg=None)``; it names only what it sets, and the
schema fills in the rest. A bundled file that has ``KEYS`` is a method's. It brings
  KEYS       the method's own keys
  DEFAULTS   what 'auto' is outside the published table, by dotted name
  PUBLISHED  {(dataset, ipc): {"values", "accuracy", "std", "source"}}
  CROSS      {(dataset, ipc): {"values": {net: (mean, std or None)}, "source"}}: the paper's
             accuracies across architectures
  STARTS     {dataset: {values}}: our own settings, by dotted name, where no paper has any
  PROTOCOL   further values of the published protocol, by dotted name
  DERIVED    {key: rule(values)} for keys whose 'auto' follows from others, or from "data.shape",
             the images' (h, w, c); it is None, and a rule may return 'auto', until they are loaded
  STAGES     the stages, where they are not all of them, or (values) -> the stages
  check      (values) -> None, refuses resolved values that do not go together
  fits       (values, dataset) -> None, refuses those that the loaded dataset does not allow
of which all but KEYS and DEFAULTS may be missing.
"""

from __future__ import annotations

import functools
import inspect
import sys
import traceback
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from jdd.config.keys import COMMON
from jdd.config.schema import Key, coerce
from jdd.errors import BadInput, JddError, nearest

QUICKSTART = "quickstart"
_EXAMPLE = "for example --config=configs/mtt.py:cifar10,ipc=10"


def config_dir() -> Path:
    """Return the folder of the bundled configs: inside the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def bundled() -> dict[str, Path]:
    """Return the bundled config files by name."""
    return {path.stem: path for path in sorted(config_dir().glob("[!_]*.py"))}


def split(spec: str | Path | None) -> tuple[str, str | None]:
    """Split ``path[:arg]``; None stands for the quick start."""
    path, colon, arg = str(QUICKSTART if spec is None else spec).partition(":")
    return path.strip(), arg if colon and arg.strip() else None


def find(path: str) -> Path:
    """Return the config file of ``path``: the file itself, or the bundled one of that name."""
    given = Path(path)
    if given.is_file():
        return given
    files = bundled()
    stem = given.name.removesuffix(".py")
    if stem in files and given.parent.name in ("", "configs"):
        return files[stem]
    near = nearest(stem, files)
    hint = f"did you mean configs/{near}.py? " if near else ""
    names = ", ".join(files)
    raise BadInput(f"--config={path}", "no such file", f"{hint}(bundled: {names}; {_EXAMPLE})")


def execute(path: Path) -> types.ModuleType:
    """Run a config file and return it as a module."""
    module = types.ModuleType(f"jdd_config_{path.stem}")
    module.__file__ = str(path)
    try:
        sys.modules[module.__name__] = module  # dataclasses look their module up
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except JddError:
        raise
    except Exception as error:  # whatever a person's file does wrong, it is input
        raise _broken(path, error) from error
    return module


def call(path: Path, arg: str | None) -> dict[str, Any]:
    """Return what ``get_config(arg)`` of a config file sets, as flat dotted names."""
    module = execute(path)
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        allowed = "a config file defines get_config(arg=None)"
        if hasattr(module, "get_study"):
            allowed = f"it is a study: --mode=study --config={path}"
        raise BadInput(str(path), "no get_config", allowed)
    takes_arg = bool(inspect.signature(get_config).parameters)
    if arg is not None and not takes_arg:
        raise BadInput(f"{path}:{arg}", "get_config takes no argument", f"--config={path}")
    try:
        values = get_config(arg) if takes_arg else get_config()
    except JddError:
        raise
    except Exception as error:
        raise _broken(path, error) from error
    if not isinstance(values, Mapping | ConfigDict):
        found = f"get_config returned {type(values).__name__}"
        raise BadInput(str(path), found, "it returns an ml_collections ConfigDict or a dict")
    return flat(values)


def _broken(path: Path, error: Exception) -> BadInput:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    words = error.msg if isinstance(error, SyntaxError) else error
    at = f" (line {line})" if line else ""
    allowed = "a config file is Python and defines get_config(arg=None)"
    return BadInput(str(path), f"{type(error).__name__}: {words}{at}", allowed)


def from_arg(arg: str | None, values: Mapping[str, Any]) -> ConfigDict:
    """Return what a config file sets: its ``values``, and over them its argument.

    Args:
      arg: the text behind the colon, ``dataset,key=value,...``; None when there is none.
      values: what the file itself sets, nested or by dotted names; 'method' at least.

    Raises:
      BadInput: an unknown key, a value that does not fit, a dataset that is not in front.
    """
    given = flat(values) | _parse(arg)
    keys = schema(given.get("method", COMMON["method"].default))
    return nested({name: checked(name, value, keys) for name, value in given.items()})


def _parse(arg: str | None) -> dict[str, str]:
    given: dict[str, str] = {}
    last = None
    for part in (arg or "").split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        if equals:
            given[name], last = value, name
        elif not name:
            continue
        elif not given:
            given["data.name"] = name
        elif last == "nets":  # nets=ConvNet,AlexNet: a comma inside a list
            given[last] += f",{name}"
        else:
            allowed = "the dataset comes first, then key=value; " + _EXAMPLE
            raise BadInput(f"--config argument {arg!r}", f"{name!r} is no key=value", allowed)
    return given


@functools.cache
def method_file(method: str) -> types.ModuleType:
    """Return the bundled config file of a method, with its KEYS, DEFAULTS and PUBLISHED.

    Raises:
      BadInput: no bundled config file of that name defines a method.
    """
    path = bundled().get(method)
    module = execute(path) if path else None
    if module is None or not hasattr(module, "KEYS"):
        names = [name for name, file in bundled().items() if hasattr(execute(file), "KEYS")]
        near = nearest(method, names)
        hint = f"did you mean {near}? " if near else ""
        raise BadInput("config.method", repr(method), f"{hint}(methods: {', '.join(names)})")
    return module


def schema(method: str) -> dict[str, Key]:
    """Return every key of a method's config: the common ones, then its own."""
    return COMMON | method_file(method).KEYS


# Methods that need other stages name them in their config file.
STAGES = ("experts", "distill", "evaluate", "report", "full")


def stage_names(config: ConfigDict) -> tuple[str, ...]:
    """Return the names of the stages of a config's method, in order."""
    names = getattr(method_file(config.method), "STAGES", STAGES)
    names = tuple(names(flat(config)) if callable(names) else names)
    return (*names, "scores") if config.scores else names


def checked(name: str, value: Any, keys: Mapping[str, Key]) -> Any:
    """Return ``value`` in the type of key ``name``, or say what is wrong with either."""
    if name not in keys:
        raise unknown(name, keys)
    return coerce(name, keys[name], value)


def unknown(name: str, keys: Iterable[str]) -> BadInput:
    """Return the error for a key that does not exist, with the nearest that does."""
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


def flat(values: Mapping[str, Any] | ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Return nested values by their dotted names."""
    if isinstance(values, ConfigDict):
        values = values.to_dict()
    out: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping | ConfigDict):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


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
    """Return dotted names as a nested ConfigDict."""
    # Not type safe: 'auto' gives way to numbers. The schema is what keeps the types.
    return ConfigDict(tree(values), type_safe=False)
