"""``--mode=study``: runs the cells of a study in order and writes its tables.

    WORKDIR/study.json           every cell: its values, state, error and figure; the table
    WORKDIR/cells/ID/            the run of a cell, as any working directory
    WORKDIR/experts/ID/          expert stores and teachers; the cells that share one have a
    WORKDIR/squeeze/ID/            relative link to it in place of their own folder
    WORKDIR/table.{csv,md,tex}   the table
    WORKDIR/compare.html, .json  the finished cells on one page

A cell is complete if its run has finished with the current settings of the study. Complete cells
are skipped; others are run, or resumed from their checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from jdd import __version__
from jdd.errors import BadInput, Interrupted, JddError
from jdd.report import comparison_json
from jdd.run import crash, pipeline, signals
from jdd.run import workdir as workdirs
from jdd.run.options import Options
from jdd.run.session import locked
from jdd.storage import failures, json_files
from jdd.storage.files import write_atomic
from jdd.storage.remote_lease import Lost
from jdd.studies import study_cells, study_file, study_metric, study_plot, study_tables
from jdd.studies.study_cells import Cell
from jdd.studies.study_file import Study

KIND = "jdd study"  # marks study.json as written by this file
WAITING, RUNNING, COMPLETE, FAILED = "waiting", "running", "complete", "failed"
_RUN_FILES = ("config.json", "result.json", "distilled.npz", "checkpoints", "metrics.jsonl")

_NONE = Options()
Row = dict[str, Any]


def run(
    found: str | Mapping[str, Any] | None,
    workdir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
    command: str = "",
    options: Options = _NONE,
) -> dict[str, Any]:
    """Run the cells of a study that are not complete; write its tables and its page.

    Args:
      found: a study file, or the result of its ``get_study()``.
      workdir: the folder of the study; None for ``runs/<name of the file>``.
      overrides: config keys of the base to change.
      command: the command line, for study.json.
      options: what the command is asked for in addition; its time limit is that of all cells.

    Returns:
      The content of study.json, the table for a terminal as ``text``, and the outcome as
      ``summary``.

    Raises:
      BadInput: the study or one of its configs is invalid; nothing is written.
      Interrupted: a signal arrived; the running cell has saved its checkpoint.
    """
    study = opened(found, overrides or {})
    directory = directory_of(study, workdir)
    cells = study_cells.make(study)
    validate_workdir(directory)
    with _interruptible(options), locked(directory):
        validate_workdir(directory)  # another command may have started in the meantime
        ledger = _Ledger(study, cells, directory, command)
        ledger.write()
        for number, cell in enumerate(cells, 1):
            _advance(cell, ledger, options, f"[{number}/{len(cells)}] {cell.name}")
        return _ended(study, cells, directory, ledger)


def opened(found: str | Mapping[str, Any] | None, overrides: Mapping[str, Any]) -> Study:
    """Return the study of a file, or of the result of its ``get_study()``."""
    if isinstance(found, Mapping):
        return study_file.validate(found, "study", overrides)
    return study_file.read(found, overrides)


def directory_of(study: Study, workdir: str | os.PathLike[str] | None) -> Path:
    """Return the working directory of a study."""
    if workdir is None and not study.where.endswith(".py"):
        raise BadInput("workdir", "missing", "jdd.study(..., workdir='runs/NAME')")
    return Path(workdir if workdir is not None else f"runs/{Path(study.where).stem}")


def validate_workdir(directory: Path) -> None:
    """Refuse a directory that cannot be written, or that holds a run or anything else.

    Raises:
      BadInput: naming the content.
    """
    path = directory / "study.json"
    if not path.exists():
        existing = [name for name in _RUN_FILES if (directory / name).exists()]
        if existing:
            found = f"{directory} is the working directory of a run (it has {existing[0]})"
            raise BadInput("--workdir", found, "give a study its own: --workdir=OTHER")
    else:
        _read(path)
    workdirs.writable("--workdir", directory)


def _read(path: Path) -> dict[str, Any]:
    """Return an earlier study.json.

    Raises:
      BadInput: it is damaged, or not a study's.
    """
    found = json_files.recall(path) or {}
    try:
        ours = found["kind"] == KIND and all(isinstance(row["id"], str) for row in found["cells"])
    except (KeyError, TypeError):
        ours = False
    if ours:
        return found
    allowed = f"move it away (finished cells are found again in {path.parent / 'cells'})"
    raise BadInput(str(path), "not a study.json that jdd wrote", allowed)


class _Ledger:
    """The rows of study.json, one per cell; every change is written immediately."""

    def __init__(self, study: Study, cells: Sequence[Cell], directory: Path, command: str):
        self.study, self.directory, self.command = study, directory, command
        path = directory / "study.json"
        before = {row["id"]: row for row in _read(path)["cells"]} if path.exists() else {}
        self.rows = {cell.id: self._row(cell, before.get(cell.id, {})) for cell in cells}
        self.table: dict[str, Any] | None = None

    def _row(self, cell: Cell, before: Row) -> Row:
        result = finished(self.directory / "cells" / cell.id)
        complete = (
            before.get("state") == COMPLETE
            and before.get("asked") == cell.config_hash
            and bool(result)
        )
        return {
            "id": cell.id,
            "name": cell.name,
            "values": cell.values,
            "seed": cell.seed,
            "folder": f"cells/{cell.id}",
            "stores": {stage: f"{stage}/{store}" for stage, store in cell.stores.items()},
            "asked": cell.config_hash,
            "state": COMPLETE if complete else WAITING,
            "error": "",
            "seconds": before.get("seconds"),
            **self._figures(cell, result if complete else None),
        }

    def _figures(self, cell: Cell, result: Mapping[str, Any] | None) -> dict[str, Any]:
        """Return the entries of a row: its figure, the first, and all of several."""
        net = str(cell.config.net.name)
        found = {
            metric: None if result is None else study_metric.figure(metric, result, net)
            for metric in self.study.metrics
        }
        every = {metric: figure and figure._asdict() for metric, figure in found.items()}
        first = {"figure": every[self.study.metrics[0]]}
        return first | ({"figures": every} if len(every) > 1 else {})

    def state(self, cell: Cell) -> str:
        """Return a cell's state."""
        return str(self.rows[cell.id]["state"])

    def reached(self, cell: Cell) -> str:
        """Return a cell's figure in words."""
        found, metric = self.rows[cell.id]["figure"], self.study.metrics[0]
        shown = found and study_metric.shown(metric, found["mean"])
        return f"{study_metric.words(metric)}: {shown or 'not measured'}"

    def mark(self, cell: Cell, state: str, error: str = "", seconds: float | None = None) -> None:
        """Set a cell's state and write study.json."""
        row = self.rows[cell.id]
        row |= {"state": state, "error": error}
        if seconds is not None:
            row["seconds"] = round((row["seconds"] or 0.0) + seconds, 1)
        if state == COMPLETE:
            row |= self._figures(cell, finished(self.directory / "cells" / cell.id))
        self.write()

    def count(self) -> dict[str, int]:
        """Return the number of cells in each state."""
        states = Counter(row["state"] for row in self.rows.values())
        return {name: states[name] for name in (COMPLETE, FAILED, RUNNING, WAITING)}

    def as_json(self) -> dict[str, Any]:
        """Return the content of study.json."""
        study = self.study
        return {
            "kind": KIND,
            "schema": 1,
            "jdd": __version__,
            "study": study.where,
            "command": self.command,
            "base": study.base,
            "seeds": sorted({row["seed"] for row in self.rows.values()}),
            "rows": study.rows,
            "columns": study.columns,
            "metric": study.metrics[0] if len(study.metrics) == 1 else list(study.metrics),
            "count": self.count(),
            "cells": list(self.rows.values()),
            "table": self.table,
        }

    def write(self) -> None:
        """Write study.json."""
        json_files.write(self.directory / "study.json", self.as_json())


def _write(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def finished(folder: Path) -> dict[str, Any]:
    """Return the result.json of a cell, {} if there is none."""
    return json_files.recall(folder / "result.json") or {}


def _advance(cell: Cell, ledger: _Ledger, options: Options, title: str) -> None:
    """Run one cell unless it is complete; a failure is recorded and does not end the study."""
    directory = ledger.directory
    folder = directory / "cells" / cell.id
    if ledger.state(cell) == COMPLETE:
        _say(cell, f"{title}: complete, {ledger.reached(cell)}")
        return
    _say(cell, f"{title}: {folder}")
    ledger.mark(cell, RUNNING)
    begun = time.perf_counter()
    command = f"python -m jdd.main {cell.flags} --workdir={folder}"
    try:
        link_stores(cell, directory)
        pipeline.run(cell.loaded, str(folder), "all", None, command, options)
    except (Interrupted, KeyboardInterrupt, Lost):
        ledger.mark(cell, WAITING, "interrupted", time.perf_counter() - begun)
        raise
    except Exception as error:  # other cells do not depend on this one
        found = " ".join((str(error) if isinstance(error, JddError) else crash.line(error)).split())
        ledger.mark(cell, FAILED, found, time.perf_counter() - begun)
        print(f"jdd: {title} failed: {found}", file=sys.stderr, flush=True)
    else:
        ledger.mark(cell, COMPLETE, seconds=time.perf_counter() - begun)
        _say(cell, f"{title}: complete, {ledger.reached(cell)}")


def _say(cell: Cell, text: str) -> None:
    if cell.config.progress:
        print(text, flush=True)


def link_stores(cell: Cell, directory: Path) -> None:
    """Link the stores that a cell shares into its working directory.

    So the config of a run names no folder, a study can be moved, and a set's experts and teachers
    are next to it, as in any run.
    """
    folder = directory / "cells" / cell.id
    for stage, store in cell.stores.items():
        shared, link = directory / stage / store, folder / stage
        failures.folder(shared, directory)
        failures.folder(folder, directory)
        if not link.exists() and not link.is_symlink():
            link.symlink_to(Path("..", "..", stage, store), target_is_directory=True)


@contextlib.contextmanager
def _interruptible(options: Options) -> Iterator[None]:
    """Raise Interrupted on the first signal between runs; a run handles them itself."""
    came = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal came
        if not came:
            came = True
            again = f"to go on: {options.again}" if options.again else ""
            raise Interrupted(f"interrupted; {again or 'the same command goes on from here'}")

    with signals.handled(stop):
        yield


def _ended(study: Study, cells: Sequence[Cell], directory: Path, ledger: _Ledger) -> dict[str, Any]:
    table = study_tables.build(study, list(ledger.rows.values()))
    ledger.table = study_tables.as_json(table)
    ledger.write()
    for name, text in study_tables.files(table).items():
        _write(directory / name, text)
    lines = []
    done = [cell for cell in cells if ledger.state(cell) == COMPLETE]
    page = ""
    if len(done) > 1:
        # With spaces, so that a page can break long names into lines.
        names = {str(directory / "cells" / cell.id): cell.name.replace(",", ", ") for cell in done}
        try:
            plot = study_plot.build(study, table)
            plots = [] if plot is None else [plot]
            comparison_json.write(list(names), directory / "compare.html", names, plots)
            page = f", side by side: {directory / 'compare.html'}"
        except BadInput as error:  # the path is in use; the table is written all the same
            lines.append(f"no page: {error.found}: move it away")
    count = ledger.count()
    for cell in cells:
        row = ledger.rows[cell.id]
        if row["state"] != COMPLETE:
            lines.append(
                f"{row['state']}: {cell.name} ({directory / row['folder']}): {row['error']}"
            )
    files = f"{directory / 'table'}.csv, .md, .tex"
    lines.append(f"{count[COMPLETE]} of {len(cells)} cells complete. Table: {files}{page}")
    return {
        **ledger.as_json(),
        "text": study_tables.text(table),
        "summary": "\n".join(lines),
    }
