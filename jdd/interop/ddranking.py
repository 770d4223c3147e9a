"""DD-Ranking's format: a folder of images.pt, labels.pt and lr.pt, as its demos read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from jdd.errors import BadInput
from jdd.interop import torch_files
from jdd.interop.class_folders import SIDECAR
from jdd.product.arrays import recipe_json
from jdd.product.distilled_set import DistilledSet
from jdd.storage.files import new_folder

TINY = 1e-12  # a probability of 0 as a logit


def labels(dataset: DistilledSet) -> np.ndarray:
    """Convert labels to DD-Ranking's form: int64 [n], or logits float32 [n, classes].

    Its soft labels are the logits of a teacher. Probabilities p become log p, whose softmax is p
    (divided by its sum if that is not 1).

    Raises:
      BadInput: targets of a squared error, which are not logits.
    """
    if dataset.label_kind == "hard":
        return np.asarray(dataset.labels, np.int64)
    if dataset.label_kind == "logits":
        return np.asarray(dataset.labels, np.float32)
    if dataset.label_kind == "probabilities":
        return np.log(np.maximum(dataset.labels, TINY)).astype(np.float32)
    found = f"{dataset.label_kind} labels, targets of a squared error"
    raise BadInput("--format=ddranking", found, "hard labels, probabilities or logits")


def write(dataset: DistilledSet, path: Path) -> Path:
    """Write the folder, all or nothing.

    images.pt: float32 [n, c, h, w] in a net's input space, normalised or whitened, class-major.
    labels.pt: see ``labels``. lr.pt: the recipe's learning rate, a number. recipe.json: the set's
    recipe and label kind, for readers.

    Raises:
      BadInput: PyTorch is missing; the set has a learning rate per step, classes of different
        sizes, centred labels or KIP's whitening; or ``path`` is not empty or cannot be written.
    """
    torch, where = torch_files.package(str(path)), "--format=ddranking"
    rate = dataset.recipe["train"]["lr"]
    rate = dataset.lr if rate is None else rate
    if rate is None or isinstance(rate, list | tuple):
        found = "no learning rate" if rate is None else f"{len(rate)} learning rates, one a step"
        raise BadInput(where, found, "a set with one rate for all steps")
    if dataset.transform.kind == "kip":
        found = "images with KIP's whitening, in which its test images would not be"
        raise BadInput(where, found, "a set that is normalised or has Kornia's")
    order, given = np.arange(len(dataset.images)), labels(dataset)
    if dataset.label_kind == "hard":  # the package numbers hard labels itself, class by class
        counts = np.bincount(dataset.labels, minlength=dataset.classes)
        if counts.min() != counts.max():
            found = f"{counts.min()} to {counts.max()} images of a class"
            raise BadInput(where, found, "as many images of every class")
        order = np.argsort(dataset.labels, kind="stable")
    images = np.asarray(dataset.images, np.float32).transpose(0, 3, 1, 2)[order]
    about = {"recipe": json.loads(recipe_json(dataset.recipe)), "label_kind": dataset.label_kind}
    with new_folder(path) as part:
        torch.save(torch.from_numpy(np.ascontiguousarray(images)), part / "images.pt")
        torch.save(torch.from_numpy(np.ascontiguousarray(given[order])), part / "labels.pt")
        torch.save(torch.tensor(float(rate)), part / "lr.pt")
        (part / SIDECAR).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return path
