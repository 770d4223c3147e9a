"""Cells of a study: every setting by every seed, resolved, with their shared stores."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from jdd import config as configs
from jdd.data import absent
from jdd.errors import BadInput
from jdd.run.context import fingerprint
from jdd.schema.key import show
from jdd.studies import study_metric
from jdd.studies.study_file import CONFIG, Study, Values, is_cell

# Keys of the stores that cells share: the stage that makes one, and its folder.
STORES = {"experts": "experts.dir", "squeeze": "squeeze.dir"}
NO_KEY = "-"  # in a row or column of the table: the cell's method has no such key


class Cell(NamedTuple):
    """One run of a study.

    Attributes:
      name: its values and seed as text: "method=dm,ipc=1,seed=0".
      id: hash of the resolved config, without the keys that may change on resuming, unless the
        study's cells set them.
      config_hash: hash of the whole resolved config, without newer keys at their default.
      values: the values that the cell sets, including "config", and those that the table shows.
      seed: its seed.
      loaded: its config, as an argument of ``pipeline.run``.
      config: the resolved config.
      stores: ids of the stores that it shares, by stage.
      flags: the command-line flags of this config.
    """

    name: str
    id: str
    config_hash: str
    values: Values
    seed: int
    loaded: configs.Loaded
    config: ConfigDict
    stores: dict[str, str]
    flags: str


def make(study: Study, placeholders: bool = False) -> list[Cell]:
    """Return the cells of a study, in the order of its file; seeds of a setting are consecutive.

    Args:
      study: the study.
      placeholders: accept a known dataset whose images are missing, for an estimate.

    Raises:
      BadInput: a config does not resolve, two cells have one config, two settings have one place in
        the table, or the plot's key is no number; the cell is named.
    """
    for metric in study.metrics:
        study_metric.validate(metric, study.where)
    cells: list[Cell] = []
    seen: dict[str, str] = {}
    for values in _settings(study):
        for seed in study.seeds or (None,):
            cell = _cell(study, values, seed, placeholders)
            if cell.id in seen:
                found = f"{seen[cell.id]} and {cell.name} are the same config"
                raise BadInput(study.where, found, "leave one of them out")
            seen[cell.id] = cell.name
            cells.append(cell)
    if not cells:
        raise BadInput(f"{study.where}: keep", "drops every combination", "keep one or more")
    _validate_table(study, cells)
    _validate_plot(study, cells)
    for cell, metric in itertools.product(cells, study.metrics):
        study_metric.validate_measured(metric, cell.config, cell.name, study.where)
    return cells


def _settings(study: Study) -> Iterator[Values]:
    for combination in itertools.product(*study.grid.values()) if study.grid else ():
        values = dict(zip(study.grid, combination, strict=True))
        if is_cell(study, values):
            yield values
    yield from study.listed


def _cell(study: Study, values: Values, seed: int | None, placeholders: bool) -> Cell:
    merged = study.base | values | ({} if seed is None else {"seed": seed})
    spec = merged.pop(CONFIG, None)
    name = named(values | ({} if seed is None else {"seed": seed}))
    try:
        if spec is None:
            spec = merged.get("method", configs.COMMON["method"].default)
        loaded = configs.load(str(spec), merged)
        without = placeholders and absent(loaded.config.data)
        config, _ = configs.resolve(loaded.config, absent=without, given=loaded.given)
        _validate_path(config)
    except BadInput as error:
        raise _named_error(study, name, values, error) from error
    if config.runs != 1:
        allowed = "list the seeds under 'seeds': each is a run of its own"
        raise BadInput(f"{study.where}: base: runs", str(config.runs), allowed)
    flat, own = configs.flat(config), configs.flat(loaded.config)
    schema = config.spec.keys
    free = {
        key for key, what in schema.items()
        if what.resumable and key not in study.axes or what.later and flat[key] == what.default
    }  # fmt: skip
    identity = {key: value for key, value in flat.items() if key not in free}
    # Keys newer than some studies leave the hash as it was while they are at their default.
    newer = {key for key, what in schema.items() if what.sparse and what.resumable}
    asked = {k: v for k, v in flat.items() if k not in newer or v != schema[k].default}
    # Values of the file in the type of their key; others as resolved.
    labels = {key: own.get(key, spec) for key in values}
    spans = (k for k in (*study.rows, *study.columns) if k not in labels)
    labels |= {k: spec if k == CONFIG else flat.get(k, NO_KEY) for k in spans}
    return Cell(
        named(labels_of(values, labels) | {"seed": config.seed}),
        fingerprint(identity),
        fingerprint(asked),
        labels,
        config.seed,
        loaded,
        config,
        stores(config),
        shlex.join([f"--config={spec}", *(f"--config.{k}={show(v)}" for k, v in merged.items())]),
    )


def _validate_path(config: ConfigDict) -> None:
    """Refuse a missing path of images: every cell would fail."""
    path = config.data.path
    if path and config.data.source not in ("tfds", "hf") and not Path(path).exists():
        raise BadInput(f"config.data.path={path}", "no such file or folder", "where the images are")


def labels_of(values: Values, labels: Values) -> Values:
    """Return the labels of the keys of ``values``, in their order."""
    return {key: labels[key] for key in values}


def named(values: Values) -> str:
    """Return values as text: "method=dm,ipc=1"."""
    return ",".join(f"{key}={show(value)}" for key, value in values.items())


def _named_error(study: Study, name: str, values: Values, error: BadInput) -> BadInput:
    key = error.where.removeprefix("config.")
    allowed = error.allowed
    unknown = error.found == "unknown key" or error.found.startswith("no key of ")
    if unknown and {"method", CONFIG} & {*study.axes}:
        allowed += "; a key of some methods only belongs into 'cells', with these methods"
    where = "" if key in values else " (of the base)" if key in study.base else ""
    return BadInput(f"{study.where}: cell {name}: {error.where}{where}", error.found, allowed)


def _validate_table(study: Study, cells: list[Cell]) -> None:
    """Refuse two settings in one place of the table, whose figures would be mixed."""
    by_labels: dict[str, Cell] = {}
    for cell in cells:
        labels = named({key: cell.values[key] for key in (*study.rows, *study.columns)})
        other = by_labels.setdefault(f"{labels},seed={cell.seed}", cell)
        if other is not cell:
            keys = [
                k for k in study.axes
                if other.values.get(k) != cell.values.get(k)
            ]  # fmt: skip
            found = f"{other.name} and {cell.name} have one place in the table, {labels}"
            allowed = f"add {' or '.join(keys)} to rows or columns"
            raise BadInput(f"{study.where}: rows", found, allowed)


def _validate_plot(study: Study, cells: list[Cell]) -> None:
    """Refuse a cell that has no number for the plot's key, listed or resolved."""
    key = study.plot
    for cell in cells if key else ():
        value = cell.values[key]
        if not isinstance(value, bool) and isinstance(value, int | float):
            continue
        if key in configs.flat(cell.config):
            found = f"cell {cell.name} has {key}={show(value)}"
            allowed = f"a number: add '{key}': NUMBER to this cell in 'cells', or to 'base'"
        else:
            found = f"cell {cell.name} has no key {key}"
            allowed = "leave out the cell, or 'plot'"
        raise BadInput(f"{study.where}: plot", found, allowed)


def stores(config: ConfigDict) -> dict[str, str]:
    """Return the ids of the stores that a run shares: hashes of the settings of its trained nets.

    A store whose folder the config sets is not shared by the study.
    """
    flat, stages = configs.flat(config), configs.stage_names(config)
    schema = config.spec.keys
    source = [key for key in flat if key.startswith("source.") and not schema[key].resumable]
    data = [key for key in flat if key.startswith("data.") and not schema[key].resumable]
    excluded = {
        # A store of experts grows in number and epochs; one of teachers has one folder per net.
        "experts": ("experts.dir", "experts.count", "experts.epochs"),
        "squeeze": ("squeeze.dir", "squeeze.nets"),
    }
    found = {}
    for stage, key_of_folder in STORES.items():
        if stage not in stages or flat.get(key_of_folder):
            continue
        keys = [key for key in flat if key.startswith(f"{stage}.") and key not in excluded[stage]]
        if stage == "experts":
            if flat["experts.schedule"] != "constant":  # it ends with the last epoch
                keys.append("experts.epochs")
            keys += ["align_corners", *(key for key in flat if key.startswith("net."))]
        found[stage] = fingerprint(_stated([*data, *source, *keys], flat, schema))
    return found


def _stated(keys: list[str], flat: Values, schema: Mapping[str, configs.Key]) -> dict[str, Any]:
    """Return the values of ``keys``, without later ones at their defaults."""
    later = {key for key in keys if schema[key].later and flat[key] == schema[key].default}
    return {key: flat[key] for key in keys if key not in later}
