"""The Python API: what the command line does, as functions."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jdd import config as configs
from jdd import interop, memory
from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet
from jdd.report import comparison_json
from jdd.run import pipeline
from jdd.run import study as studies


def distill(
    config: str = "quickstart", workdir: str | Path | None = None, **overrides: Any
) -> DistilledSet:
    """Run a config to its end (or go on with it) and return the distilled set.

    Args:
      config: a config file with its argument, as ``--config`` takes it: 'mtt:cifar10,ipc=10'.
      workdir: where the run lives; None for its default under ``runs/``.
      **overrides: config keys; nested ones as dicts, ``data={"path": "x.zip"}``, or with the dots
        in a dict, ``**{"data.path": "x.zip"}``.

    Raises:
      BadInput, Diverged, Interrupted, OutOfMemory: as the command line does.
    """
    loaded = configs.load(config, overrides)
    resolved, _ = configs.resolve(loaded.config)
    place = Path(workdir or configs.default_workdir(resolved, loaded.spec))
    pipeline.run(loaded, str(place), command=_call("distill", config, place, overrides))
    return DistilledSet.load(place / "distilled.npz")


def _call(name: str, first: str, place: Path, overrides: dict[str, Any]) -> str:
    rest = f", **{overrides!r}" if overrides else ""
    return f"jdd.{name}({first!r}, {str(place)!r}{rest})"


def evaluate(
    dset: DistilledSet | str | Path,
    workdir: str | Path | None = None,
    config: str | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train fresh nets on a set and return what ``result.json`` holds.

    Args:
      dset: a set, or the path of one in any format that ``load`` reads.
      workdir: where the evaluation lives; None for a temporary folder.
      config: a config file, as ``--config`` takes it: for a set of a method that is defined there.
      **overrides: keys of the set's method, such as ``nets=["ConvNet", "AlexNet"]`` or
        ``eval={"n": 10}``.
    """
    loaded = configs.load(config, overrides, of_set=True)
    if isinstance(dset, DistilledSet) and dset.recipe["train"]["order"] == "stored":
        raise BadInput("dset", "a set of stored labels", "its path: labels/ lies beside it")
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "distilled.npz" if isinstance(dset, DistilledSet) else Path(dset)
        if isinstance(dset, DistilledSet):
            dset.save(path)
        place = str(workdir or Path(scratch) / "evaluation")
        return pipeline.run(loaded, place, "evaluate", str(path), f"jdd.evaluate({str(path)!r})")


def compare(
    runs: str | Iterable[str | os.PathLike[str]], to: str | os.PathLike[str] = "compare.html"
) -> dict[str, Any]:
    """Write finished runs side by side on the page ``to``, and their figures as JSON beside it.

    Args:
      runs: working directories or globs of them; a text may hold several, with commas between.

    Returns:
      what the JSON holds, accuracies as fractions, and the table in words as ``summary``.

    Raises:
      BadInput: a folder is missing, no run or named twice; none is finished; ``to`` is no place.
    """
    return comparison_json.write(runs, to)


def study(
    grid: str | os.PathLike[str] | Mapping[str, Any],
    workdir: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Run a grid of configs by seeds, or go on with it, and return its figures.

    Args:
      grid: a study file, or the dict that its ``get_study()`` returns (docs/studies.md).
      workdir: where the study lives; None for ``runs/<name of the file>``.
      **overrides: config keys of the study's base, as in ``distill``.

    Returns:
      what ``study.json`` holds: ``cells``, ``count`` by state, ``table`` (accuracies as fractions);
      the table in words as ``text``. A cell that failed is there with its error.

    Raises:
      BadInput: the study or one of its configs cannot be used; nothing is written.
      Interrupted: the running cell has saved its checkpoint.
    """
    found = grid if isinstance(grid, Mapping) else os.fspath(grid)
    return studies.run(found, workdir, overrides, "jdd.study(...)")


def load(path: str | Path, **known: Any) -> DistilledSet:
    """Load a distilled set: jdd's .npz, .safetensors or .pt, others' .pt tensors, image folders.

    Args:
      **known: what a set does not say itself: ``dataset``, ``zca``, ``lr``, ``epochs``, ``dsa``,
        ``net`` ... (see ``jdd.interop.load``).

    Raises:
      BadInput: as ``jdd.interop.load``.
      OutOfMemory: the set does not fit into memory.
    """
    with memory.guarded(f"reading {path}", lambda: "a smaller set, or a machine with more memory"):
        found = interop.load(path, **known)
    for note in found.notes:  # what was assumed of somebody else's set
        warnings.warn(f"{path}: {note}", stacklevel=2)
    return found


def export(dset: DistilledSet | str | Path, path: str | Path, fmt: str | None = None) -> Path:
    """Write a set for other programs.

    ``fmt`` is 'png' (class folders), 'safetensors', 'pt', 'npz', 'ddranking' or 'figures' (of a
    run's distilled.npz: accuracy curve, comparison bars and image grid; a warning names those that
    were not written).
    """
    if fmt == "figures":
        written = export_figures(dset, path)
        if written.omitted:
            warnings.warn(written.omitted, stacklevel=2)
        return written.folder
    return interop.export(load(dset) if not isinstance(dset, DistilledSet) else dset, path, fmt)


def export_figures(dset: DistilledSet | str | Path, path: str | Path) -> interop.Written:
    """Write figures for papers into the new folder ``path``; return what was written.

    Raises:
      BadInput: as ``load`` and ``jdd.interop.write_figures``.
    """
    if isinstance(dset, DistilledSet):
        return interop.write_figures(dset, Path(path))
    return interop.write_figures(load(dset), Path(path), Path(dset))
