"""``--mode=estimate`` of a study: the total cost of the cells that are not complete."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdd import config as configs
from jdd.memory import size
from jdd.run import pipeline
from jdd.run.context import fingerprint
from jdd.run.session import clock
from jdd.studies import study, study_cells
from jdd.studies.study_cells import STORES, Cell

_FULL = ("data.", "net.", "experts.", "baselines.full")  # what the cached full baseline depends on


def run(
    found: str | Mapping[str, Any] | None,
    workdir: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Estimate one cell of each setting, and print the total over the seeds; write nothing.

    Shared outputs count once: the largest estimate of each expert store, of each folder of teachers
    and of the baseline on the whole dataset.

    Raises:
      BadInput: as ``study.run``.
      OutOfMemory: as the estimate of a run does.
    """
    opened = study.opened(found, overrides or {})
    directory = study.directory_of(opened, workdir)
    cells = study_cells.make(opened, placeholders=True)
    study.validate_workdir(directory)
    settings: dict[str, list[Cell]] = {}
    for cell in cells:
        if not study.finished(directory / "cells" / cell.id):
            settings.setdefault(study_cells.named(cell.values), []).append(cell)
    own, shared, memory = 0.0, dict[str, float](), 0
    for name, seeds in settings.items():
        print(f"\n{name} ({len(seeds)} seeds)" if len(seeds) > 1 else f"\n{name}")
        costs = _cost(seeds[0], directory)
        for stage, cost in costs.items():
            key = _shared(stage, seeds[0])
            if key:
                shared[key] = max(shared.get(key, 0.0), cost["seconds"])
            else:
                own += cost["seconds"] * len(seeds)
            memory = max(memory, cost["temporaries_bytes"])
    left, total = sum(map(len, settings.values())), own + sum(shared.values())
    words = f"{left} of {len(cells)} cells to run: in all {clock(total)}, of it "
    words += f"{clock(sum(shared.values()))} for what cells share"
    words += f"; {size(memory)} of XLA temporaries at the most" if memory else ""
    return {"cells": left, "seconds": total, "temporaries_bytes": memory, "summary": f"\n{words}"}


def _cost(cell: Cell, directory: Path) -> dict[str, Any]:
    folder, loaded = directory / "cells" / cell.id, cell.loaded
    if not folder.exists():  # its links do not exist yet, its stores may
        dirs = {
            STORES[stage]: str(directory / stage / store) for stage, store in cell.stores.items()
        }
        loaded = loaded._replace(config=configs.replace(loaded.config, dirs))
    return pipeline.run(loaded, str(folder), "estimate")


def _shared(stage: str, cell: Cell) -> str:
    """Return the id of a stage's output that several cells share; '' for a cell's own."""
    if stage in cell.stores:
        return f"{stage}/{cell.stores[stage]}"
    if stage != "full":
        return ""
    flat = configs.flat(cell.config)
    found = {k: v for k, v in flat.items() if k.startswith(_FULL)}
    return f"full/{fingerprint([found, cell.config.baseline_nets])}"
