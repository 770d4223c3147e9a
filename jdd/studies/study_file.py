"""Reading and validation of a study file: the dict that ``get_study()`` of STUDY.py returns.

The fields of the dict, of which ``base`` and one of ``grid`` and ``cells`` are required:
  base      the config common to all cells: text as for --config ("mtt:digits,ipc=1"), or a dict of
            config keys, in which "config" may be such a text
  grid      {key: list of values}; every combination is a cell
  cells     list of {key: value}: further cells, one by one
  keep      (values of a combination) -> bool; a combination with False is dropped
  seeds     seeds of every cell (default: the base's own)
  rows      keys whose values are the table's rows
  columns   keys whose values are the table's columns (default: the last key of the grid)
  metric    the figure in the table (default: "accuracy"; ``study_metric``), or a list of several,
            a column each
  plot      a key of rows or columns with numbers: the page shows the first metric against it
The key "config" in a grid or cell is the config file, which the other keys then change.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jdd import config as configs
from jdd.errors import BadInput, JddError, nearest
from jdd.schema.python_file import execute
from jdd.schema.values import is_mapping

FIELDS = ("base", "grid", "cells", "keep", "seeds", "rows", "columns", "metric", "plot")
CONFIG = "config"  # the key that names a config file
_EXAMPLE = "--mode=study --config=STUDY.py, a file with get_study() (docs/studies.md)"
_RESERVED = {
    "seed": "list the seeds under 'seeds'",
    "runs": "list the seeds under 'seeds': each is a run of its own",
}

Values = dict[str, Any]


class Study(NamedTuple):
    """A validated study.

    Attributes:
      where: the file, for errors.
      base: values by dotted key; "config" is the config file with its argument.
      grid: values of each key.
      listed: the values of each further cell.
      keep: ``(values) -> bool``, True if a combination of the grid is a cell; None: all are.
      seeds: None for the base's own.
      rows, columns: keys that span the table.
      metrics: the figures in the table; several are its last key of columns.
      plot: the key that the page shows the first of them against; '' for none.
    """

    where: str
    base: Values
    grid: dict[str, tuple[Any, ...]]
    listed: tuple[Values, ...]
    keep: Callable[[Values], object] | None
    seeds: tuple[int, ...] | None
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    metrics: tuple[str, ...]
    plot: str = ""

    @property
    def axes(self) -> tuple[str, ...]:
        """Return the keys that cells set, in the order of the file."""
        listed = [key for values in self.listed for key in values]
        return tuple(dict.fromkeys([*self.grid, *listed]))


def is_study(spec: str | None) -> bool:
    """True if ``--config=SPEC`` names a file that defines ``get_study``; executes nothing."""
    path = Path(spec or "")
    if not path.is_file():
        return False
    text = path.read_bytes()
    return re.search(rb"^(def\s+)?get_study\b", text, re.M) is not None


def read(spec: str | None, overrides: Mapping[str, Any]) -> Study:
    """Return the study of a file; ``overrides`` change its base.

    Raises:
      BadInput: no such file, no ``get_study``, or its result is not a study.
    """
    if not spec:
        raise BadInput("--config", "missing", _EXAMPLE)
    path = Path(spec)
    if not path.is_file():
        raise BadInput(f"--config={spec}", "no such file", _EXAMPLE)
    return validate(_called(path), str(path), overrides)


def _called(path: Path) -> object:
    try:
        module = execute(path)
    except BadInput as error:
        allowed = "a study file is Python and defines get_study()"
        raise BadInput(error.where, error.found, allowed) from error
    get_study = getattr(module, "get_study", None)
    if not callable(get_study):
        config = hasattr(module, "get_config")
        allowed = f"it is a config: leave out --mode=study, or give {_EXAMPLE}"
        raise BadInput(str(path), "no get_study", allowed if config else _EXAMPLE)
    try:
        return get_study()
    except JddError:
        raise
    except Exception as error:
        raise _broken(str(path), "get_study", error) from error


def _broken(where: str, name: str, error: Exception) -> BadInput:
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == where]
    at = f" (line {lines[-1]})" if lines else ""
    found = f"{name} raised {type(error).__name__}: {error}{at}"
    return BadInput(where, found, "correct the file, and give the command again")


def validate(found: object, where: str, overrides: Mapping[str, Any]) -> Study:
    """Validate the dict ``found`` and return its study; ``overrides`` change its base.

    Raises:
      BadInput: naming the invalid field of ``found``.
    """
    if not isinstance(found, Mapping):
        allowed = f"a dict with base, grid or cells, seeds, rows, columns, metric; {_EXAMPLE}"
        raise BadInput(where, f"get_study returned {type(found).__name__}", allowed)
    for name in found:
        if name not in FIELDS:
            near = nearest(str(name), FIELDS)
            hint = f"did you mean {near}? " if near else ""
            raise BadInput(where, f"unknown field {name!r}", f"{hint}(fields: {', '.join(FIELDS)})")
    grid, listed = _grid(found.get("grid"), where), _listed(found.get("cells"), where)
    if not grid and not listed:
        raise BadInput(where, "neither grid nor cells", "'grid': {'ipc': [1, 10]}, for example")
    keep, metric = found.get("keep"), found.get("metric", "accuracy")
    if keep is not None and not callable(keep):
        raise BadInput(f"{where}: keep", repr(keep), "a function: values -> True or False")
    metrics = (metric,) if isinstance(metric, str) else metric
    known = isinstance(metrics, list | tuple) and all(isinstance(m, str) and m for m in metrics)
    if not known or not metrics or len(set(metrics)) < len(metrics):
        allowed = "text, such as 'accuracy', or a list of different ones"
        raise BadInput(f"{where}: metric", repr(metric), allowed)
    study = Study(
        where, _base(found.get("base"), where), grid, listed, keep, _seeds(found, where), (), (),
        tuple(metrics),
    )  # fmt: skip
    study = _overridden(study, overrides)
    rows, columns = _spans(study, found)
    study = study._replace(rows=rows, columns=columns)
    return study._replace(plot=_plot(found.get("plot"), study))


def _base(base: object, where: str) -> Values:
    where = f"{where}: base"
    if isinstance(base, str) and base.strip():
        return {CONFIG: base.strip()}
    if not is_mapping(base) or not base:
        allowed = "a config such as 'mtt:digits,ipc=1', or a dict of config keys"
        raise BadInput(where, "missing" if base is None else repr(base), allowed)
    values = configs.flat(base)
    if "runs" in values:
        raise BadInput(f"{where}: runs", repr(values["runs"]), _RESERVED["runs"])
    return values


def _grid(grid: object, where: str) -> dict[str, tuple[Any, ...]]:
    where = f"{where}: grid"
    if grid is None:
        return {}
    if not isinstance(grid, Mapping) or not grid:
        found = "empty" if isinstance(grid, Mapping) else repr(grid)
        raise BadInput(where, found, "{'ipc': [1, 10]}, for example, or leave grid out")
    out = {}
    for key, values in configs.flat(grid).items():
        _validate_key(key, where)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise BadInput(f"{where}: {key}", repr(values), "a list with one value or more")
        out[key] = tuple(values)
    return out


def _listed(cells: object, where: str) -> tuple[Values, ...]:
    where = f"{where}: cells"
    if cells is None:
        return ()
    if isinstance(cells, str | Mapping) or not isinstance(cells, Sequence) or not cells:
        raise BadInput(where, repr(cells), "a list of dicts, or leave cells out")
    out = []
    for cell in cells:
        if not isinstance(cell, Mapping) or not cell:
            raise BadInput(where, repr(cell), "{'method': 'mtt', 'steps': 500}, for example")
        out.append(configs.flat(cell))
        for key in out[-1]:
            _validate_key(key, where)
    return tuple(out)


def _validate_key(key: object, where: str) -> None:
    if not isinstance(key, str):
        raise BadInput(where, f"the key {key!r}", "names of config keys")
    if key in _RESERVED:
        raise BadInput(f"{where}: {key}", "not a key of cells", _RESERVED[key])


def _seeds(found: Mapping[str, Any], where: str) -> tuple[int, ...] | None:
    seeds, where = found.get("seeds"), f"{where}: seeds"
    if seeds is None:
        return None
    whole = isinstance(seeds, Sequence) and not isinstance(seeds, str) and len(seeds) > 0
    if not whole or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise BadInput(where, repr(seeds), "a list of integers, 0 or more: [0, 1, 2]")
    if len(set(seeds)) < len(seeds):
        raise BadInput(where, repr(list(seeds)), "each seed once")
    return tuple(seeds)


def _overridden(study: Study, overrides: Mapping[str, Any]) -> Study:
    """Return ``study`` with other values in its base; refuse keys that the cells set."""
    given = configs.flat(overrides)
    for key in given:
        if key in study.axes or key == "seed" and study.seeds is not None or key == "runs":
            field = "seeds" if key in _RESERVED else "grid or cells"
            found = f"given with a study, whose {field} set it"
            raise BadInput(f"config.{key}", found, f"change {study.where}")
    return study._replace(base=study.base | given)


def _spans(study: Study, found: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the keys of the table's rows and columns."""
    given = {}
    for field in ("rows", "columns"):
        names = found.get(field)
        if names is not None:
            given[field] = _names(names, f"{study.where}: {field}", study.axes)
    both = set(given.get("rows", ())) & set(given.get("columns", ()))
    if both:
        where = f"{study.where}: columns"
        raise BadInput(where, f"{sorted(both)[0]!r} is in rows too", "each key once")
    # Keys of every cell only: other keys would leave gaps in labels.
    shared = [
        key
        for key in study.axes
        if (not study.grid or key in study.grid) and all(key in cell for cell in study.listed)
    ]
    several = [key for key, values in study.grid.items() if len(values) > 1]
    varied = [key for key in shared if len({repr(cell[key]) for cell in study.listed}) > 1]
    axes = several or list(study.grid) or varied or shared or list(study.axes)
    if "columns" not in given:
        rest = [key for key in axes if key not in given.get("rows", ())]
        wanted = rest if "rows" in given else rest[-1:] if len(rest) > 1 else []
        given["columns"] = tuple(wanted)
    if "rows" not in given:
        given["rows"] = tuple(key for key in axes if key not in given["columns"])
    return given["rows"], given["columns"]


def _plot(key: object, study: Study) -> str:
    """Return the key of the plot, one that spans the table with numbers; '' for none."""
    if key is None:
        return ""
    where, spans = f"{study.where}: plot", (*study.rows, *study.columns)
    if not isinstance(key, str) or key not in spans:
        raise BadInput(where, repr(key), f"a key of rows or columns ({', '.join(spans)})")
    listed = [values[key] for values in study.listed if key in values]
    for value in (*study.grid.get(key, ()), *listed):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise BadInput(
                where, f"{key!r} has the value {value!r}", "a key whose values are numbers"
            )
    return key


def _names(names: object, where: str, axes: Iterable[str]) -> tuple[str, ...]:
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence):
        raise BadInput(where, repr(names), "a list of keys")
    known = list(axes)
    for name in names:
        if name not in known:
            near = nearest(str(name), known)
            hint = f"did you mean {near}? " if near else ""
            allowed = f"{hint}(keys of the grid and the cells: {', '.join(known)})"
            raise BadInput(where, f"{name!r} is no key of a cell", allowed)
    if len(set(names)) < len(names):
        raise BadInput(where, repr(list(names)), "each key once")
    return tuple(names)


def is_cell(study: Study, values: Values) -> bool:
    """True if a combination of the grid is a cell.

    Raises:
      BadInput: ``keep`` raised.
    """
    if study.keep is None:
        return True
    try:
        return bool(study.keep(dict(values)))
    except Exception as error:
        raise _broken(study.where, f"keep({values})", error) from error
