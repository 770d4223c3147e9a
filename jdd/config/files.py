"""Config files: locating and running them, and parsing the argument behind the colon.

A config file is a Python module with ``get_config(arg=None)``. It contains only the keys it sets;
the schema supplies the rest. A file with ``SPEC`` defines a method (``jdd.specs.base.Spec``); its
``get_config`` is optional.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jdd import specs
from jdd.errors import BadInput, JddError, nearest
from jdd.schema.common import COMMON, Common
from jdd.schema.key import Key, checked, unknown
from jdd.schema.protocols import OWN
from jdd.schema.python_file import broken, execute
from jdd.schema.values import flat, is_mapping, nested
from jdd.specs.base import Spec, validate_spec
from jdd.stages.registry import Phase
from jdd.storage import shipped

if TYPE_CHECKING:
    from ml_collections import ConfigDict

QUICKSTART = "quickstart"
_EXAMPLE = "for example --config=configs/mtt.py:cifar10,ipc=10"


def bundled() -> dict[str, Path]:
    """Return the bundled config files by name. A method without a file is run by its spec."""
    files = {path.stem: path for path in shipped.folder("configs").glob("[!_]*.py")}
    own = {name: specs.FOLDER / f"{name}.py" for name in specs.names()}
    return dict(sorted((own | files).items()))


def split(spec: str | Path | None) -> tuple[str, str | None]:
    """Split ``path[:arg]``; None means the quick start."""
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


class File(NamedTuple):
    """Content of a config file: the values it sets, by dotted name, and its own method, if any."""

    values: dict[str, Any]
    spec: Spec | None


def call(path: Path, arg: str | None) -> File:
    """Return the values a config file sets (``get_config(arg)``) and the method it defines."""
    if path.parent == specs.FOLDER:
        own: Spec | None = specs.get(path.stem)
        return File(flat(from_arg(arg, {"method": path.stem})), own)
    module = execute(path)
    own = _own_spec(module, path)
    get_config = getattr(module, "get_config", None)
    if get_config is None and own is not None:
        return File(flat(from_arg(arg, {"method": own.name}, own)), own)
    if not callable(get_config):
        allowed = "a config file defines get_config(arg=None), or SPEC"
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
        raise broken(path, error) from error
    if not is_mapping(values):
        found = f"get_config returned {type(values).__name__}"
        raise BadInput(str(path), found, "it returns an ml_collections ConfigDict or a dict")
    return File(flat(values), own)


def _own_spec(module: types.ModuleType, path: Path) -> Spec | None:
    """Return the validated SPEC of a config file, with the folder of its modules."""
    if not hasattr(module, "SPEC"):
        return None
    found = validate_spec(module.SPEC, str(path))
    if found.name in specs.names():
        if found is specs.get(found.name):
            return found
        raise BadInput(f"{path}: SPEC.name", repr(found.name), "a name that no method of jdd has")
    return dataclasses.replace(found, folder=str(path.resolve().parent))


def from_arg(arg: str | None, values: Mapping[str, Any], spec: Spec | None = None) -> ConfigDict:
    """Return the values a config file sets: its ``values``, overridden by its argument.

    Args:
      arg: the text behind the colon, ``dataset,key=value,...``; None if there is none.
      values: the values set by the file itself, nested or by dotted names; at least 'method'.
      spec: the spec of a method defined outside the package.

    Raises:
      BadInput: an unknown key, an invalid value, or a dataset that is not the first item.
    """
    given = flat(values) | argument(arg)
    of = spec_for(str(given.get("method", COMMON["method"].default)), spec)
    return nested(checked_values(given, of))


def argument(arg: str | None) -> dict[str, str]:
    """Return the values in a config's argument, ``dataset,key=value,...``, by dotted name.

    Raises:
      BadInput: a part that is no ``key=value``, after the first.
    """
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


def spec_for(method: str, own: Spec | None = None) -> Spec:
    """Return the spec of a method: ``own`` if it is that method's, else the package's.

    Raises:
      BadInput: no method of the package has this name.
    """
    return own if own is not None and own.name == method else specs.get(method)


def checked_values(values: Mapping[str, Any], spec: Spec) -> dict[str, Any]:
    """Return values by dotted name, each converted to the type of its key.

    Raises:
      BadInput: an unknown key, or an invalid value.
    """
    for name in values:
        if name not in spec.keys:
            raise unknown_key(name, spec)
    return {name: checked(name, value, spec.keys) for name, value in values.items()}


def unknown_key(name: str, spec: Spec) -> BadInput:
    """Return the error for a key that a method does not have; other methods that have it are named.

    A name that no method has is answered with the nearest known one.
    """
    others = [method for method in specs.names() if name in specs.get(method).keys]
    if not others:
        return unknown(name, spec.keys)
    what = f"{name} is a key of {', '.join(others)}"
    return BadInput(f"config.{name}", f"no key of {spec.title}", f"leave it out: {what}")


def schema(method: str) -> Mapping[str, Key]:
    """Return every config key of one of the package's methods: common keys, then its own."""
    return specs.get(method).keys


def stage_names(config: Common) -> tuple[str, ...]:
    """Return the names of the stages of a config's method, including its own phases, in order."""
    names = tuple(s.name if isinstance(s, Phase) else s for s in _stages(config))
    quality = getattr(config, "quality", None)  # of methods that make a generator
    measured = ("quality",) if quality is not None and quality.images else ()
    common = ("protocol",) if config.eval.protocol != OWN else ()
    return (*names, *measured, *(("scores",) if config.scores else ()), *common)


def phases(config: Common) -> tuple[Phase, ...]:
    """Return the method-specific phases of a config's method, in order."""
    return tuple(stage for stage in _stages(config) if isinstance(stage, Phase))


def _stages(config: Common) -> tuple[str | Phase, ...]:
    stages = config.spec.stages
    return tuple(stages(flat(config)) if callable(stages) else stages)
