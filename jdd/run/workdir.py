"""Kinds of working directory: a run, or the evaluation of an external set.

An evaluation writes ``checkpoints/set.json`` before anything else. Directories older than this file
are recognised as runs by outputs that an evaluation does not write.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

from jdd import config as configs
from jdd.data import cache
from jdd.errors import BadInput
from jdd.evaluation import rules
from jdd.product import files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.run import metrics
from jdd.run.context import RunContext, fingerprint, stored_set
from jdd.schema.common import Common
from jdd.stages.registry import BUILDERS, MAKERS
from jdd.storage import json_files, remote
from jdd.storage.files import write_text

SET_FILE = "set"  # checkpoints/set.json, as ``RunContext.remember`` writes it


def evaluated_digest(directory: Path) -> str | None:
    """Return the digest of the set evaluated in ``directory``; None without set.json."""
    found = json_files.recall(directory / "checkpoints" / f"{SET_FILE}.json") or {}
    return str(found["digest"]) if "digest" in found else None


def holds_run(directory: Path) -> bool:
    """Return whether ``directory`` contains a finished or partial run, or a set."""
    if evaluated_digest(directory) is not None:
        return False
    if not os.path.exists(directory / "distilled.npz"):
        return os.path.exists(directory / "config.json")
    return not os.path.exists(directory / "config.json") or holds_products(directory)


def holds_external_set(directory: Path) -> bool:
    """Return whether ``directory`` contains the evaluation of an external set."""
    if evaluated_digest(directory) is not None:
        return True
    if holds_run(directory) or not (directory / "distilled.npz").exists():
        return False
    dset = stored_set(directory / "distilled.npz")
    return bool(dset.recipe["fingerprint"] == digest(dset))  # written before set.json was


def digest(dset: AnyProduct) -> str:
    """Return the hash of every part of a product that its evaluation depends on."""
    if not isinstance(dset, DistilledSet):
        found = files.to_arrays(dset)
        named = [[n, hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()]
                 for n, a in sorted(found.items()) if n != "recipe"]  # fmt: skip
        return fingerprint([named, dset.recipe["train"], dset.recipe["augment"]])
    own, arrays = dset.transform, [dset.images, dset.labels, *dset.transform[:2]]
    if own.fitted:  # the inverse follows from the matrix and is absent from a loaded set
        arrays += [a for a in (own.zca_mean, own.zca_matrix, own.zca_image) if a is not None]
    if dset.weights is not None:
        arrays.append(dset.weights)
    parts = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]
    if not own.fitted:  # the matrix is not the set's: the real images determine it
        parts.append(own.kind)
    return fingerprint([parts, dset.label_kind, dset.recipe["train"], dset.recipe["augment"]])


def holds_products(directory: Path) -> bool:
    """Return whether ``directory`` contains a set, or nets trained to make one."""
    folder = directory / "checkpoints"
    if any(any(folder.glob(f"{maker}*/")) for maker in MAKERS):
        return True
    return any(
        row["stage"].startswith(BUILDERS) for row in metrics.read(directory / "metrics.jsonl")
    )


def pull_stores(config: Common, coordinator: str = "") -> None:
    """Pull the stores of nets that are given as URLs.

    Raises:
      BadInput: a URL in a run of several processes, or as ``remote.working``.
    """
    keys = configs.flat(config)
    for key in ("experts.dir", "squeeze.dir"):
        place = str(keys.get(key, ""))
        if remote.is_url(place):
            if coordinator:
                remote.refuse_several(f"config.{key}", place)
            remote.working(place, cache.folder(config.data.cache_dir))


def writable(where: str, directory: Path) -> None:
    """Refuse a folder that cannot be written or created.

    Raises:
      BadInput: naming ``where`` it was given, and the obstacle.
    """
    near, reason = obstacle(directory)
    if reason:
        raise BadInput(
            f"{where}={directory}", f"{near} cannot be written{reason}", "a folder you may write"
        )


def writable_cache(context: RunContext) -> None:
    """Refuse a cache folder in which the nets that runs share cannot be stored.

    Raises:
      BadInput: as ``writable``, for the folder or one of those in it.
    """
    folder = cache.folder(context.config.data.cache_dir)
    for place in (
        folder,
        *(folder / kind for kind in ("full", "protocol-teachers", "classifiers")),
    ):
        writable("config.data.cache_dir", place)


def obstacle(directory: Path) -> tuple[Path, str]:
    """Return a folder, or the nearest one above it that exists, and why no file can be written
    there; '' if one can. It is written, without a name: permissions alone promise nothing, as on a
    read-only or full disk, or to root.
    """
    near = directory
    while not os.path.exists(near):  # also False if a parent folder is not searchable
        near = near.parent
    try:
        with tempfile.TemporaryFile(dir=near) as file:
            file.write(b"0")
    except OSError as error:
        return near, f" ({error.strerror})"
    return near, ""


def reported(directory: Path) -> bool:
    """Return whether a directory has the result and the report of a run, of whatever settings."""
    return (directory / "result.json").is_file() and (directory / "report.html").is_file()


def validate(directory: Path, config: Common) -> None:
    """Refuse a directory that contains a run of another config, or is not writable.

    That of a reported run may be read-only: its result is shown.
    """
    saved = directory / "config.json"
    if saved.exists():
        old = configs.stored(saved, config.spec)
        free = {"eval.lr"} if _without_rate(directory, old) else set[str]()
        configs.validate_resume(configs.flat(old), config, str(directory), free)
    if not reported(directory):
        writable("--workdir", directory)


def _without_rate(directory: Path, config: Common) -> bool:
    """Return whether the set in a directory has no learning rate and the config gives none."""
    path = directory / "distilled.npz"
    lr: object = config.eval.lr  # 'auto' until the config is resolved
    if lr not in (0, configs.AUTO) or not path.exists():
        return False
    return rules.rate(stored_set(path)) is None


def write_config(context: RunContext) -> None:
    """Write the resolved config into the run's directory."""
    write_text(context.workdir / "config.json", configs.to_json(context.config), recorded=True)
