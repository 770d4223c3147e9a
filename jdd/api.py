"""The Python API: the functions of the command line."""

from __future__ import annotations

import dataclasses
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jdd import config as configs
from jdd import interop, memory
from jdd.data import cache
from jdd.errors import BadInput
from jdd.product import files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.product.pairs import PairSet
from jdd.report import comparison_json
from jdd.run import pipeline
from jdd.run import retriever as retrievers
from jdd.run.retriever import Retriever
from jdd.schema.common import Common
from jdd.storage import json_files, remote, zoo
from jdd.studies import study as studies

__all__ = [
    "DistilledSet",
    "compare",
    "distill",
    "evaluate",
    "export",
    "export_figures",
    "load",
    "make_config",
    "retriever",
    "study",
    "torch_dataset",
]


def make_config(config: str | Path = "quickstart", **overrides: Any) -> Common:
    """Return the typed config of ``config``, for ``distill``; 'auto' stays until the run.

    It is a frozen dataclass, ``jdd.schema.common.Common`` with the method's own keys:
    ``config.eval.n``, ``dataclasses.replace(config, ipc=10)``.

    Args:
      config: a config file with its argument, as in ``--config``: 'mtt:cifar10,ipc=10'.
      **overrides: config keys, as in ``distill``.

    Raises:
      BadInput: an unknown key or an invalid value, or a key that the method does not use.
    """
    loaded = configs.load(config, overrides)
    configs.validate_used(loaded.config, loaded.explicit)
    return dataclasses.replace(loaded.config, _given=loaded.explicit - {"method"})


def distill(
    config: str | Path | Common = "quickstart", workdir: str | Path | None = None, **overrides: Any
) -> AnyProduct:
    """Run a config to completion, resuming where it stopped, and return the distilled set.

    Prints the run's result and the report's path, as the command line does, unless ``progress`` is
    false.

    Args:
      config: a config file with its argument, as in ``--config``: 'mtt:cifar10,ipc=10'; or a config
        of ``make_config``, whose method is fixed.
      workdir: the run's working directory, or its URL; None for its default under ``runs/``.
      **overrides: config keys; nested ones as dicts, ``data={"path": "x.zip"}``, or with dotted
        names, ``**{"data.path": "x.zip"}``.

    Returns:
      The set in ``distilled.npz`` of the working directory. Its ``result`` is the content of
      ``result.json``: accuracies by net under ``accuracy`` (mean, population std, n; fractions),
      baselines, and the report's path under ``report``.

    Raises:
      BadInput, Diverged, Interrupted, OutOfMemory: as on the command line.
    """
    config = str(config) if isinstance(config, Path) else config
    loaded = _loaded(config, overrides)
    configs.resolve(loaded.config, given=loaded.given)  # an error comes before anything else
    to = workdir or configs.default_workdir(loaded.config, loaded.spec, loaded.typed)
    place = remote.working(to, cache.folder(loaded.config.data.cache_dir))
    configs.validate_used(loaded.config, loaded.explicit, place)
    name, given = (config, overrides) if isinstance(config, str) else _changed(loaded.config)
    found = pipeline.run(loaded, str(place), command=_call("distill", name, to, given))
    if loaded.config.progress:
        for line in (found.get("table"), found.get("summary")):
            if line:
                print(line, flush=True)
    result = {**found, "report": str(place / "report.html")}
    return files.load(place / "distilled.npz")._replace(result=result)


def _loaded(config: str | Common, overrides: dict[str, Any]) -> configs.Loaded:
    """Return a config with overrides; the values of a typed one are validated again."""
    if isinstance(config, str):
        return configs.load(config, overrides)
    if not isinstance(config, Common):
        found, allowed = type(config).__name__, "a config's name or path, or jdd.make_config(...)"
        raise BadInput("config", found, allowed)
    made = configs.fill(config.spec, configs.flat(config), configs.flat(overrides))
    if made.method != config.spec.name:
        found = f"{made.method}, in a config of {config.spec.title}"
        raise BadInput("config.method", found, f"jdd.make_config({made.method!r}, ...) makes one")
    given = frozenset(_changed(made)[1]) | config.given | frozenset(configs.flat(overrides))
    return configs.Loaded(made, given, config.method, typed=given)


def _changed(config: Common) -> tuple[str, dict[str, Any]]:
    """Return a config's method, and its dataset and values that are not the method's own for it."""
    plain = configs.flat(configs.fill(config.spec, {"data.name": config.data.name}))
    named = {"data.name": config.data.name} if config.data.name else {}
    values = configs.flat(config).items()
    return config.method, named | {n: v for n, v in values if v != plain[n]}


def _call(name: str, first: str, place: str | Path, overrides: dict[str, Any]) -> str:
    rest = f", **{overrides!r}" if overrides else ""
    return f"jdd.{name}({first!r}, {str(place)!r}{rest})"


def evaluate(
    dset: AnyProduct | str | Path,
    workdir: str | Path | None = None,
    config: str | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Train fresh nets on a set and return the content of ``result.json``.

    Args:
      dset: a set, or the path of one in any format that ``load`` reads, such as a run's folder,
        its URL, or ``zoo:NAME``.
      workdir: the evaluation's working directory, or its URL; None for a temporary one.
      config: a config file, as in ``--config``, for a set of a method defined there.
      **overrides: keys of the set's method, such as ``nets=["ConvNet", "AlexNet"]`` or
        ``eval={"n": 10}``.

    Returns:
      Accuracies by net under ``accuracy`` (mean, population std, n; fractions), baselines,
      seconds, memory, versions.

    Raises:
      BadInput: the set or a key is invalid, or a set of stored labels is not given by its path.
    """
    loaded = configs.load(config, overrides, of_set=True)
    if isinstance(dset, AnyProduct) and dset.recipe["train"]["order"] == "stored":
        raise BadInput("dset", "a set of stored labels", "its path: labels/ lies next to it")
    with tempfile.TemporaryDirectory() as scratch:
        folder = cache.folder(loaded.config.data.cache_dir)
        given = Path(scratch) / "distilled.npz" if isinstance(dset, AnyProduct) else dset
        if isinstance(dset, AnyProduct):
            dset.save(given)
        path = files.set_path(remote.reading(given, folder))
        place = str(remote.working(workdir or Path(scratch) / "evaluation", folder))
        return pipeline.run(loaded, place, "evaluate", str(path), f"jdd.evaluate({str(given)!r})")


def compare(
    runs: str | Iterable[str | os.PathLike[str]], to: str | os.PathLike[str] = "compare.html"
) -> dict[str, Any]:
    """Compare finished runs on the page ``to``; write their figures as JSON next to it.

    Args:
      runs: working directories, their URLs, or globs of directories; a string may list several,
        separated by commas.
      to: the HTML page.

    Returns:
      The content of the JSON, accuracies as fractions, and the table as text in ``summary``.

    Raises:
      BadInput: a folder is missing, is not a run or is named twice; no run is finished; ``to``
        cannot be written.
    """
    words = [word.strip() for word in runs.split(",")] if isinstance(runs, str) else runs
    local = [os.fspath(word) for word in words]
    return comparison_json.write([_figures(word) for word in local], to)


def _figures(run: str) -> str:
    """Return a run's folder, or a local copy of what its figures need of the one at a URL."""
    if zoo.is_name(run):
        return str(zoo.local(run))
    return str(remote.reading(run, cache.folder(), "figures")) if remote.is_url(run) else run


def study(
    grid: str | os.PathLike[str] | Mapping[str, Any],
    workdir: str | os.PathLike[str] | None = None,
    **overrides: Any,
) -> dict[str, Any]:
    """Run or resume a grid of configs by seeds, and return its figures.

    Args:
      grid: a study file, or the dict that its ``get_study()`` returns (docs/studies.md).
      workdir: the study's directory, or its URL; None for ``runs/<name of the file>``.
      **overrides: config keys of the study's base, as in ``distill``.

    Returns:
      The content of ``study.json``: ``cells``, ``count`` by state, ``table`` (accuracies as
      fractions); the table as plain text in ``text``. A failed cell is listed with its error.

    Raises:
      BadInput: the study or one of its configs is invalid; nothing is written.
      Interrupted: the running cell has saved its checkpoint.
    """
    found = grid if isinstance(grid, Mapping) else os.fspath(grid)
    if workdir is not None:
        workdir = remote.working(workdir, cache.folder(str(overrides.get("data.cache_dir", ""))))
    return studies.run(found, workdir, overrides, "jdd.study(...)")


def load(path: str | Path, config: str | None = None, **known: Any) -> AnyProduct:
    """Load a distilled set: jdd's .npz, .safetensors or .pt, others' .pt tensors, image folders.

    Args:
      path: the file, a run's folder or its URL, a folder or archive of class folders, or
        ``zoo:NAME``, a set that comes with jdd.
      config: a config file, as in ``--config``, of a method outside jdd whose generators the file
        may contain. The file itself never names code to run.
      **known: facts that the file does not contain: ``dataset``, ``zca``, ``lr``, ``epochs``,
        ``dsa``, ``net`` ... (see ``jdd.interop.load``).

    Returns:
      The set. Its assumptions about a foreign set are warnings. The ``result`` of a run's set is
      the content of ``result.json`` if the run's folder is given.

    Raises:
      BadInput: no such file, or it contains no set, as in ``jdd.interop.load``.
      OutOfMemory: the set does not fit into memory.
    """
    if config is not None:
        configs.load(config, of_set=True).config.spec.register()
    path = remote.reading(path, cache.folder())
    with memory.guarded(f"reading {path}", lambda: "a smaller set, or a machine with more memory"):
        found = interop.load(path, **known)
    for note in found.notes:  # assumptions about a foreign set
        warnings.warn(f"{path}: {note}", stacklevel=2)
    record = zoo.local(path).expanduser() / "result.json"
    if record.is_file():
        result = json_files.recall(record)
        if result is None:
            warnings.warn(f"{record}: damaged, so the set has no result", stacklevel=2)
        else:
            found = found._replace(result=result)
    return found


def export(
    dset: AnyProduct | str | Path,
    path: str | Path,
    fmt: str | None = None,
    images: int | None = None,
) -> Path:
    """Write a set for other programs.

    Args:
      dset: a set, or the path of one.
      path: the file or folder to write.
      fmt: 'png' (class folders), 'safetensors', 'pt', 'npz', 'ddranking', 'huggingface' (a dataset
        folder with a card) or 'figures' (of a run's distilled.npz: accuracy curve, comparison bars
        and image grid; a warning names those that were not written); of a generator 'npz', 'png'
        or 'weights' (a folder with its weights and PyTorch and Flax code); None for the format
        implied by the path's ending.
      images: of a generator as 'png', images of each class; None for as many as an epoch has.

    Returns:
      The written path.

    Raises:
      BadInput: the format cannot represent the set, or ``path`` cannot be written.
    """
    if fmt == "figures":
        written = export_figures(dset, path)
        if written.omitted:
            warnings.warn(written.omitted, stacklevel=2)
        return written.folder
    product = load(dset) if not isinstance(dset, AnyProduct) else dset
    return interop.export(product, path, fmt, images)


def export_figures(dset: AnyProduct | str | Path, path: str | Path) -> interop.Written:
    """Write figures for papers into the new folder ``path``; return the written figures.

    Raises:
      BadInput: as ``load`` and ``jdd.interop.write_figures``.
    """
    if not isinstance(dset, AnyProduct):
        dset = remote.reading(dset, cache.folder())
    product = dset if isinstance(dset, AnyProduct) else load(dset)
    if not isinstance(product, DistilledSet | PairSet):
        found = f"a product of kind {product.kind!r}"
        raise BadInput("--format=figures", found, "a fixed set of images, or pairs")
    if isinstance(dset, AnyProduct):
        return interop.write_figures(product, Path(path))
    return interop.write_figures(product, Path(path), files.set_path(dset))


def retriever(pairs: PairSet | str | Path, seed: int = 0) -> Retriever:
    """Train two towers on a set of pairs, by its recipe, to search pictures by words.

        towers = jdd.retriever("runs/vl")
        towers.search("a dog in the snow", "photos/", k=3)

    Args:
      pairs: a set of pairs, the path of one, or its run's folder.
      seed: of initial weights and batches.

    Raises:
      BadInput: another product, or as ``load`` and ``jdd.run.retriever.retriever``.
    """
    product = pairs if isinstance(pairs, AnyProduct) else load(pairs)
    if not isinstance(product, PairSet):
        raise BadInput("retriever", f"a product of kind {product.kind!r}", "a set of pairs")
    where = "the set's recipe" if isinstance(pairs, AnyProduct) else str(pairs)
    return retrievers.retriever(product, seed, where)


def torch_dataset(
    dset: DistilledSet | str | Path, seed: int = 0, augment: bool = True
) -> interop.Examples:
    """Return a set as a ``torch.utils.data.Dataset`` of (image, label) in the space of the nets.

    With ``DataLoader(data, batch_size=data.batch, shuffle=data.shuffle)``; ``data.set_epoch(e)``
    before each epoch draws the augmentation anew, or reads the stored views and soft labels of that
    epoch. Test images need ``dset.transform.forward``.

    Args:
      dset: a set, or the path of one; of stored labels, its path or its run's folder.
      seed: of the augmentation's draws.
      augment: whether images show the augmentation of the set's recipe.

    Raises:
      BadInput: PyTorch is missing; the set is not a fixed set of images; its stored labels are
        missing, of other images, or given by teachers in the student's step.
    """
    if not isinstance(dset, AnyProduct):
        dset = remote.reading(dset, cache.folder())
    product = dset if isinstance(dset, AnyProduct) else load(dset)
    if not isinstance(product, DistilledSet):
        found = f"a product of kind {product.kind!r}"
        raise BadInput("torch_dataset", found, "a fixed set of images")
    folder = None if isinstance(dset, AnyProduct) else files.set_path(dset).resolve().parent
    return interop.torch_dataset(product, folder, seed, augment)
