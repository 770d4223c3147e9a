"""The distilled set: synthetic images with everything needed to train on them correctly."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from jdd.data.transform import Transform
from jdd.data.whitening_fit import fit, kind_of, left_out
from jdd.errors import BadInput
from jdd.product import html, recipe_types
from jdd.product.arrays import (
    EXPECTED,
    as_read,
    floats,
    read_npz,
    recipe_json,
    require,
    scalar,
    transform_of,
    validate_transform,
    whitening_arrays,
)
from jdd.storage import json_files
from jdd.storage.files import write_atomic
from jdd.training.recipe import protocol

SCHEMA = 3  # the newest readable schema; for the written one see ``to_arrays``
# Plausibility limits. Numbers of a set stay below the first: learned images and logits reach tens
# or hundreds, whitening gains 1300 (KIP's, of 224 x 224 pixels). A rate below the second has no
# effect in float32. The third is 1 over the smallest std that a channel is divided by.
LARGEST, SMALLEST_RATE, STEEPEST = 1e4, 1e-12, 1.001e6
LABEL_KINDS = ("hard", "probabilities", "logits", "centred")

# The published evaluation protocol: the default recipe of a set.
RECIPE: dict[str, Any] = {
    "schema": 1,
    "jdd_version": "",
    "method": "",
    "dataset": "",
    "class_names": [],
    "ipc": 0,
    "seed": 0,
    "steps": 0,
    "net": {"name": "ConvNet", "options": {}},
    "train": protocol(lr=0.01).to_json(whole=True)  # entries: see training/recipe.py
    | {
        "init": {"kind": "fresh"},  # or fixed, experts: see stages/initial_variables.py
    },
    "augment": {"name": "none", "strategy": "", "align_corners": True},
    "normalisation": {"mean": [], "std": []},
    "whitening": "none",
    "selection": "last",
    "labels": {"kind": "own"},  # or stored, with views, in a folder next to the set
    "full": {},  # training of the full baseline: keys of experts, full_epochs
    "data": {},
    "fingerprint": "",
    "command": "",
}


class DistilledSet(NamedTuple):
    """A synthetic set in the input space of the nets, with its labels and its recipe.

    Attributes:
      images: float32 [n, h, w, c], normalised or whitened: direct inputs of a net.
      labels: int32 [n] when ``label_kind`` is 'hard', else float32 [n, classes].
      label_kind: 'hard', 'probabilities', 'logits' or 'centred' (one-hot minus 1/classes).
      lr: the learned learning rate of the student, None when none was learned.
      recipe: how to train on the set, as plain data (see ``RECIPE``).
      transform: maps pixels in [0, 1] to the space of ``images``, and back.
      notes: sentences on assumptions made in reading a foreign set; not saved.
      named: False if the class names are placeholders; not saved.
      weights: float32 [n], weights of the images' losses, of mean 1; None for equal weights.
      result: result.json of the run that ``jdd.distill`` made the set in, with the last lines
        printed (``table``, ``summary``) and the report's path (``report``); {} otherwise; not
        saved.
    """

    images: np.ndarray
    labels: np.ndarray
    label_kind: str
    lr: float | None
    recipe: dict[str, Any]
    transform: Transform
    notes: tuple[str, ...] = ()
    named: bool = True
    weights: np.ndarray | None = None
    result: Mapping[str, Any] = MappingProxyType({})

    def __repr__(self) -> str:
        n, h, w, c = np.shape(self.images)
        recipe = merge(RECIPE, self.recipe)
        learned = "" if self.lr is None else f", learned rate {self.lr:g}"
        made = recipe["method"] or "no method named"
        return (
            f"DistilledSet of {recipe['dataset'] or 'an unnamed dataset'} by {made}: "
            f"{n} image{'s' * (n != 1)} of {h}x{w}x{c}, {len(recipe['class_names'])} classes\n"
            f"  {self.label_kind} labels{learned}, {self.transform.kind} whitening"
            f"{'' if self.transform.fitted else ' (left out)'}, net {recipe['net']['name']}"
        ).replace("none whitening", "no whitening")

    def _repr_html_(self) -> str:
        """Return the set as a notebook shows it: its repr and its images by class."""
        of, names = self.classes_of_images, merge(RECIPE, self.recipe)["class_names"]
        return html.gallery(self.images, self.transform, of, names, repr(self))

    @property
    def kind(self) -> str:
        """The kind of product, one of ``base.KINDS``."""
        return "images"

    @property
    def size(self) -> int:
        """The number of images."""
        return len(self.images)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in label order."""
        return tuple(self.recipe["class_names"])

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.recipe["class_names"])

    @property
    def classes_of_images(self) -> np.ndarray:
        """The class of each image: its label, or its label's largest entry; int32 [n]."""
        if self.label_kind == "hard":
            return np.asarray(self.labels, np.int32)
        return np.asarray(np.argmax(self.labels, axis=1), np.int32)

    def with_recipe(self, recipe: dict[str, Any]) -> DistilledSet:
        """Return the same set with another recipe."""
        return self._replace(recipe=recipe)

    def fitted(self, pixels: np.ndarray, scale: float = 1.0) -> DistilledSet:
        """Return the set with the whitening that its file leaves out, fitted to real images.

        Args:
          pixels: all training images that the set was made from, [n, h, w, c], 0 to ``scale``.
        """
        return self._replace(transform=fit(self.transform, pixels, scale))

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the set as ``.npz`` of plain arrays, atomically; equal sets give equal bytes.

        Raises:
          BadInput: the set is inconsistent, or ``path`` cannot be written.
        """
        arrays = to_arrays(validate(self, str(path)))
        return write_atomic(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DistilledSet:
        """Read a set written by ``save``; nothing in the file is ever executed.

        Raises:
          BadInput: no such file, or it is truncated, foreign, inconsistent or contains pickled
            objects.
        """
        return from_arrays(read_npz(path), str(path))


def make_recipe(**known: Any) -> dict[str, Any]:
    """Return the default recipe with the ``known`` entries merged in, section by section."""
    return merge(RECIPE, known)


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` overridden by ``changes``; nested mappings are merged, not replaced."""
    out = copy.deepcopy(dict(base))
    for key, value in changes.items():
        nested = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merge(out[key], value) if nested else copy.deepcopy(value)
    return out


def to_arrays(dataset: DistilledSet) -> dict[str, np.ndarray]:
    """Return the set as named plain arrays; text (recipe, label kind) becomes string arrays.

    A set without weights is of schema 1, one with weights of schema 2, and one whose whitening is
    left out of schema 3.
    """
    version = 1 if dataset.weights is None else 2
    arrays = {
        "schema_version": np.asarray(version if dataset.transform.fitted else SCHEMA, np.int32),
        "images": np.ascontiguousarray(dataset.images, np.float32),
        "labels": np.asarray(
            dataset.labels, np.int32 if dataset.label_kind == "hard" else np.float32
        ),
        "label_kind": np.asarray(dataset.label_kind),
        "mean": np.asarray(dataset.transform.mean, np.float32),
        "std": np.asarray(dataset.transform.std, np.float32),
        "recipe": np.asarray(recipe_json(dataset.recipe)),
    }
    if dataset.lr is not None:
        arrays["lr"] = np.asarray(dataset.lr, np.float64)
    arrays |= whitening_arrays(dataset.transform)
    if dataset.weights is not None:
        arrays |= {"kind": np.asarray("images"), "weights": np.asarray(dataset.weights, np.float32)}
    return arrays


def validate_version(arrays: Mapping[str, np.ndarray], where: str) -> None:
    """Refuse a file of a newer schema.

    Raises:
      BadInput: naming its version and the newest readable one.
    """
    version = int(scalar(arrays, "schema_version", where, 1))
    if version > SCHEMA:
        raise BadInput(
            where,
            f"schema version {version}",
            f"this jdd reads up to version {SCHEMA}: install a newer one",
        )


def from_arrays(arrays: Mapping[str, np.ndarray], where: str) -> DistilledSet:
    """Build a set from the arrays of ``to_arrays``; ``where`` is the file's name in errors."""
    validate_version(arrays, where)
    if (kind := str(arrays.get("kind", "images"))) != "images":
        raise BadInput(where, f"a set of kind {kind!r}", "a fixed set of labelled images")
    require(arrays, ("images", "labels", "label_kind", "recipe"), where)
    recipe = read_recipe(str(arrays["recipe"]), where)
    lr = scalar(arrays, "lr", where) if "lr" in arrays else None
    transform, kind = transform_of(arrays, recipe, where), kind_of(recipe["whitening"])
    if kind != "none" and not any(name.startswith("zca_") for name in arrays):
        transform = left_out(kind, arrays["images"].shape[1:], transform)
    dataset = DistilledSet(
        np.asarray(arrays["images"]),
        np.asarray(arrays["labels"]),
        str(arrays["label_kind"]),
        lr,
        recipe,
        transform,
        weights=arrays.get("weights"),
    )
    return validate(dataset, where)


def read_recipe(text: str, where: str) -> dict[str, Any]:
    """Parse a recipe's JSON and fill in entries missing from older files.

    Raises:
      BadInput: not JSON, or not structured like a recipe.
    """
    try:
        found = json_files.parse(text, where, EXPECTED)
    except BadInput as error:
        raise BadInput(where, f"the recipe is {error.found}", EXPECTED) from error
    recipe_types.validate(found, where)
    for key, default in RECIPE.items():
        if isinstance(default, dict | list) and not isinstance(
            found.get(key, default), type(default)
        ):
            raise BadInput(
                where,
                f"recipe.{key} is {found[key]!r}",
                f"a JSON {'object' if isinstance(default, dict) else 'list'} is needed",
            )
    for key in ("drop", "schedule", "init"):  # nested sections
        if not isinstance((found.get("train") or {}).get(key), dict | None):
            value = found["train"][key]
            raise BadInput(where, f"recipe.train.{key} is {value!r}", "a JSON object, or null")
    return merge(RECIPE, found)


def validate(dataset: DistilledSet, where: str) -> DistilledSet:
    """Return the set with its arrays in their declared types.

    Raises:
      BadInput: shapes, labels, label kind, transform and recipe are inconsistent.
    """
    images, labels = np.asarray(dataset.images), np.asarray(dataset.labels)
    if images.ndim != 4 or 0 in images.shape or images.dtype.kind != "f":
        raise BadInput(
            where,
            f"images are {images.dtype}{list(images.shape)}",
            "floats of shape [n, h, w, c] are needed",
        )
    with np.errstate(over="ignore"):  # overflow of float32 gives infinity
        images = images.astype(np.float32)
    if not np.isfinite(images).all():
        raise BadInput(where, "images hold NaN or infinity", "every pixel must be finite")
    if dataset.label_kind not in LABEL_KINDS:
        raise BadInput(
            where, f"label_kind {dataset.label_kind!r}", f"one of {', '.join(LABEL_KINDS)}"
        )
    labels = validate_labels(labels, dataset.label_kind, len(images), dataset.classes, where)
    if dataset.lr is not None and not 0 < dataset.lr < np.inf:
        raise BadInput(where, f"lr is {dataset.lr:.6g}", "a finite learning rate above 0 is needed")
    validate_transform(dataset.transform, images.shape[1:], where)
    return dataset._replace(
        images=images,
        labels=labels,
        lr=None if dataset.lr is None else float(dataset.lr),
        recipe=as_read(dataset.recipe),
        weights=_weights(dataset.weights, len(images), where),
    )


def _weights(weights: np.ndarray | None, n: int, where: str) -> np.ndarray | None:
    """Return the weights as float32 [n] of mean 1, None if there are none."""
    if weights is None:
        return None
    found = floats(weights, "weights", 1, where)
    if len(found) != n or found.min() < 0 or not found.sum() > 0:
        words = f"weights of shape {list(found.shape)}, from {found.min():g} to {found.max():g}"
        raise BadInput(where, words, f"[{n}] numbers, 0 or more, of which one is above 0")
    return np.asarray(found / found.mean(), np.float32)


def plausible(dataset: DistilledSet, where: str) -> DistilledSet:
    """Return a set that was read; refuse numbers that indicate a damaged file.

    ``interop.load`` applies this check to every format. ``DistilledSet`` does not, so that it can
    store and return the last good set of a diverged run.

    Raises:
      BadInput: a number beyond ``LARGEST``, a rate below ``SMALLEST_RATE``.
    """
    transform, lr = dataset.transform, dataset.lr
    if lr is not None and not SMALLEST_RATE <= lr <= LARGEST:
        allowed = f"{SMALLEST_RATE:g} to {LARGEST:g}: the file is damaged, or its run diverged"
        raise BadInput(where, f"lr is {lr:g}", allowed)
    # A nearly constant channel has a small std, and real images reach 1 / std.
    steep = 1.0 / float(np.min(transform.std))
    limits: dict[str, tuple[Any, float]] = {
        "1 / std": (steep, STEEPEST),
        "images": (dataset.images, max(LARGEST, steep)),
        "labels": (None if dataset.label_kind == "hard" else dataset.labels, LARGEST),
    }
    whitening = ("zca_mean", "zca_matrix", "zca_image") if transform.fitted else ()
    limits |= {name: (getattr(transform, name), LARGEST) for name in ("mean", "std", *whitening)}
    for name, (values, limit) in limits.items():
        if values is None:
            continue
        reached = max(-float(np.min(values)), float(np.max(values)))
        if not reached <= limit:  # also true for NaN
            allowed = f"at most {limit:g}: the file is damaged, or its run diverged"
            raise BadInput(where, f"{name} as large as {reached:.3g}", allowed)
    return dataset


def validate_labels(labels: np.ndarray, kind: str, n: int, classes: int, where: str) -> np.ndarray:
    """Return ``labels`` as int32 [n] ('hard') or float32 [n, classes] (soft).

    Raises:
      BadInput: wrong shape, not whole numbers, out of range, or not finite.
    """
    if classes < 1:
        raise BadInput(where, "no class names in the recipe", "name every class")
    if kind == "hard":
        if labels.shape != (n,) or labels.dtype.kind not in "iu":
            raise BadInput(
                where,
                f"hard labels are {labels.dtype}{list(labels.shape)}",
                f"whole numbers of shape [{n}] are needed",
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise BadInput(
                where,
                f"labels from {labels.min()} to {labels.max()}",
                f"{classes} classes allow 0 to {classes - 1}",
            )
        return labels.astype(np.int32)
    if labels.shape != (n, classes) or labels.dtype.kind != "f":
        raise BadInput(
            where,
            f"{kind} labels are {labels.dtype}{list(labels.shape)}",
            f"floats of shape [{n}, {classes}] are needed",
        )
    with np.errstate(over="ignore"):
        labels = labels.astype(np.float32)
    if not np.isfinite(labels).all():
        raise BadInput(where, "labels hold NaN or infinity", "every label must be finite")
    return labels
