"""Sets that a method makes in parts: the outer loop runs once per part.

The images of a finished part are stored in ``checkpoints/<stage>-parts``, and its checkpoints are
deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np

from jdd import methods
from jdd.errors import BadInput
from jdd.methods.base import Problem, State
from jdd.methods.recovery import Part
from jdd.run import loop
from jdd.run.context import RunContext
from jdd.run.session import Session
from jdd.run.team import Team
from jdd.storage import digest_records, failures, npz_files, tree_digests
from jdd.storage.files import write_atomic


def made(
    context: RunContext,
    problem: Problem,
    parts: Sequence[Part],
    seed: int,
    session: Session,
    team: Team,
    after: Callable[[Sequence[np.ndarray]], None],
) -> State:
    """Return the state of the whole set, whose parts are made one after another.

    Args:
      team: the devices that share a step.
      after: called with the images of the finished parts, after each part but the last.
    """
    stage = context.stage(seed)
    folder, images = context.workdir / "checkpoints" / f"{stage}-parts", []
    programs: dict[tuple[int, ...], loop.Programs] = {}
    session.metrics.start(stage)
    for part in parts:
        # Named by its content: with other parts, an image batch is made again.
        path = folder / f"{part.name}.npy"
        found = _part(path, session)
        if found is None:
            method, own = methods.make(context.config, problem, part), f"{stage}-{path.stem}"
            if part.form not in programs and method.objective is not None:
                programs[part.form] = loop.make_step(method, seed, team.devices)
            step = programs.get(part.form)
            lead = team.lead(session, {"seed": seed, "part": part.name})
            state = loop.run(
                method, problem, seed, session, team.devices, own, programs=step, lead=lead
            )
            if planned := session.temporaries.get(own):
                context.remember("temporaries", stage, planned)
            last = session.metrics.last(own) or {}
            figures = {k: v for k, v in last.items() if k not in ("stage", "step", "seconds")}
            session.metrics.log(stage, part[-1].number + 1, **figures)
            failures.folder(folder, context.workdir)
            found = np.asarray(state.variables["images"])
            digest_records.record(path, "arrays", tree_digests.of_arrays({"images": found}))
            write_atomic(path, partial(_save_array, found))
            shutil.rmtree(context.workdir / "checkpoints" / own, ignore_errors=True)
        images.append(found)
        if part is not parts[-1]:
            after(images)
    for left in (context.workdir / "checkpoints").glob(f"{stage}-[0-9]*"):
        shutil.rmtree(left)  # parts of another partition: batches_at_once has changed
    return State({"images": np.concatenate(images)}, {})


def _part(path: Path, session: Session) -> np.ndarray | None:
    """Return a stored part; None: it is missing, or damaged and made again."""
    if not path.exists():
        return None
    try:
        found = npz_files.read_npy(path, "")
        if digest_records.fits(path, "arrays", tree_digests.of_arrays({"images": found})):
            return found
        words = "its arrays are not those written"
    except BadInput as error:
        words = error.found
    session.warn(f"{path}: {words}; it is made again")
    return None


def _save_array(array: np.ndarray, file: BinaryIO) -> None:
    np.save(file, array)
