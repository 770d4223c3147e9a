"""What a working directory holds: a run of its own, or the evaluation of a set made elsewhere.

An evaluation says so in ``checkpoints/set.json``, which it writes before all else. Directories of
before there was this sign are told by what a run leaves and an evaluation does not.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import numpy as np

from jdd import config as configs
from jdd.errors import BadInput
from jdd.evaluation import rules
from jdd.product import files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct
from jdd.run import metrics
from jdd.run.context import RunContext, fingerprint
from jdd.schema.common import Common
from jdd.stages.registry import BUILDERS, MAKERS
from jdd.storage.files import write_text

SIGN = "set"  # checkpoints/set.json, as ``Work.remember`` writes it


def sign(place: Path) -> str | None:
    """Return the digest of the set whose evaluation ``place`` holds, None without a sign."""
    try:
        found = json.loads((place / "checkpoints" / f"{SIGN}.json").read_text(encoding="utf-8"))
        return str(found["digest"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def own(place: Path) -> bool:
    """Tell whether ``place`` holds a run of its own, made or begun, or a set that lies there."""
    if sign(place) is not None:
        return False
    if not os.path.exists(place / "distilled.npz"):
        return os.path.exists(place / "config.json")
    return not os.path.exists(place / "config.json") or made(place)


def assessed(place: Path) -> bool:
    """Tell whether ``place`` holds the evaluation of a set that was made elsewhere."""
    if sign(place) is not None:
        return True
    if own(place) or not (place / "distilled.npz").exists():
        return False
    dset = DistilledSet.load(place / "distilled.npz")
    return bool(dset.recipe["fingerprint"] == digest(dset))  # of before there was a sign


def digest(dset: AnyProduct) -> str:
    """Return the hash of all of a product that the figures of its evaluation depend on."""
    if not isinstance(dset, DistilledSet):
        found = files.to_arrays(dset)
        named = [[n, hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest()]
                 for n, a in sorted(found.items()) if n != "recipe"]  # fmt: skip
        return fingerprint([named, dset.recipe["train"], dset.recipe["augment"]])
    # The inverse follows from the matrix, and a loaded set does not hold it.
    fitted = [*dset.transform[:4], dset.transform.zca_image]
    arrays = [dset.images, dset.labels, *(a for a in fitted if a is not None)]
    if dset.weights is not None:
        arrays.append(dset.weights)
    parts = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in arrays]
    return fingerprint([parts, dset.label_kind, dset.recipe["train"], dset.recipe["augment"]])


def made(place: Path) -> bool:
    """Tell whether a set was made in ``place``, or nets to make it from."""
    folder = place / "checkpoints"
    if any(any(folder.glob(f"{maker}*/")) for maker in MAKERS):
        return True
    return any(row["stage"].startswith(BUILDERS) for row in metrics.read(place / "metrics.jsonl"))


def writable(where: str, place: Path) -> None:
    """Refuse a folder that cannot be written, or made.

    Raises:
      BadInput: naming ``where`` it was given, and what is in the way.
    """
    near = place
    while not os.path.exists(near):  # False too where a folder above cannot be searched
        near = near.parent
    if not near.is_dir() or not os.access(near, os.W_OK):
        raise BadInput(f"{where}={place}", f"{near} cannot be written", "a folder you may write")


def check(place: Path, config: Common) -> None:
    """Refuse a directory that cannot be written or holds a run of another config."""
    saved = place / "config.json"
    if saved.exists():
        old = configs.from_json(saved.read_text(encoding="utf-8"), str(saved), config.spec)
        free = {"eval.lr"} if _without_rate(place, old) else set[str]()
        configs.check_resume(configs.flat(old), config, str(place), free)
    writable("--workdir", place)


def _without_rate(place: Path, config: Common) -> bool:
    """Tell whether the set in a directory has no rate to be trained at, and was given none."""
    path = place / "distilled.npz"
    lr: object = config.eval.lr  # 'auto' as long as the config is not resolved
    if lr not in (0, configs.AUTO) or not path.exists():
        return False
    return rules.rate(files.load(path)) is None


def write_config(context: RunContext) -> None:
    """Write the resolved config into the run's directory."""
    write_text(context.workdir / "config.json", configs.to_json(context.config))
