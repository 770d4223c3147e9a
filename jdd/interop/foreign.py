"""Foreign sets, without a recipe: combine the file's content with facts given by the caller."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from jdd.data import class_names
from jdd.data.catalogue import CATALOGUE, Facts, default_dsa, lookup
from jdd.data.transform import NAMES, Transform, normalisation, whitening_kind
from jdd.errors import BadInput
from jdd.product import distilled_set
from jdd.product.arrays import validate_transform
from jdd.product.distilled_set import DistilledSet

# Learned pixels exceed [0, 1] slightly; larger values are on the scale 0 to 255.
_BRIGHT = 32.0
_ROUNDING = 1e-6  # of a probability: values down to -1e-6 count as 0


class NeedsTransform(BadInput):
    """The set's transform is not in its file and has to be computed from the real data."""


class Known(NamedTuple):
    """Facts about a set, given by the caller; None: not given.

    Fields:
      dataset: name in jdd's table of datasets: class names, mean, std, DSA strategy.
      class_names: instead of the dataset's, in label order.
      transform: of the real data, as the set's authors used it; needed for whitening.
      zca: how the images are whitened: none, kornia, kip or frepo; True is kornia, False none.
      space: 'net' (normalised or whitened: MTT's and DC's tensors) or 'pixels' (from 0 to 1, or
        whole numbers from 0 to 255). Required only for floats without a value below 0: integer
        types are pixels, and floats with values below 0 are 'net'.
      method, net, net_options, lr, epochs, steps, batch: of the evaluation recipe.
      dsa: strategy such as 'color_crop_cutout_flip_scale_rotate', 'none', or 'auto': the dataset's.
      align_corners: of DSA; MTT's code has True, DC's False.
      label_kind: 'probabilities', 'logits' or 'centred' for soft labels.
      label_order: of a set without labels: 'class' (0 0 1 1 ..) or 'cycle' (0 1 .. 0 1 ..).
      item: 0-based index of the run in a DC file that holds several.
    """

    dataset: str | None = None
    class_names: tuple[str, ...] | None = None
    transform: Transform | None = None
    zca: bool | str | None = None
    space: str | None = None
    method: str | None = None
    net: str | None = None
    net_options: dict[str, Any] | None = None
    lr: float | None = None
    epochs: int | None = None
    steps: int | None = None
    batch: int | None = None
    dsa: str | None = None
    align_corners: bool | None = None
    label_kind: str | None = None
    label_order: str | None = None
    item: int | None = None


class Found(NamedTuple):
    """Content of a foreign file."""

    images: np.ndarray  # float32 or whole numbers, [n, h, w, c]
    labels: np.ndarray | None = None
    folders: tuple[str, ...] | None = None  # the class folder of each image
    siblings: tuple[str, ...] = ()  # files next to it that may be other parts of the same set
    lr: float | None = None
    space: str = ""  # 'net' or 'pixels'; "": not stated in the file
    align_corners: bool = True
    label_kind: str = ""
    recipe: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()  # what was assumed in reading it


def adopt(found: Found, known: Known, where: str) -> DistilledSet:
    """Build a set from foreign images and known facts.

    Assumptions made from the images' values are listed in ``notes`` of the recipe.
    """
    if 0 in found.images.shape:
        raise BadInput(where, f"images of shape {list(found.images.shape)}", "at least one image")
    own = found.recipe or {}
    name = known.dataset or own.get("dataset", "")
    facts = lookup(name)
    given = known.class_names or own.get("class_names") or (facts.class_names if facts else ())
    if not name and known.transform is None:
        raise BadInput(
            where,
            "does not say which dataset it was made from",
            "--config.data.name=NAME with --mode=evaluate, dataset=NAME in Python, where NAME is "
            f"{', '.join(list(CATALOGUE)[:6])} ... or your own with its images",
        )
    if facts and known.transform is None and found.images.shape[1:] != facts.shape:
        raise BadInput(
            where,
            f"images of shape {list(found.images.shape[1:])}",
            f"{name} has {list(facts.shape)}",
        )
    labels, names, notes = _labels(found, known, tuple(given), facts.classes if facts else 0, where)
    kind = _label_kind(labels, known, found, where)
    labels = distilled_set.validate_labels(labels, kind, len(found.images), len(names), where)
    if kind == "probabilities" and labels.min() >= -_ROUNDING:
        labels = np.maximum(labels, 0)
    transform = _transform(found, known, facts, where)
    validate_transform(transform, found.images.shape[1:], where)
    images, assumed = _in_nets_space(found, known, transform, where)
    recipe = distilled_set.make_recipe(**own) | dict(
        dataset=name,
        class_names=list(names),
        ipc=len(images) // len(names),
        method=known.method or own.get("method") or "",
        normalisation={
            "mean": np.ravel(transform.mean).tolist(),
            "std": np.ravel(transform.std).tolist(),
        },
        whitening=NAMES[transform.kind],
        data=own.get("data") or {},
    )
    if kind == "centred":
        recipe["train"] = recipe["train"] | {"loss": "squared_error"}
    notes = (*found.notes, *notes, *assumed)
    dataset = DistilledSet(images, labels, kind, found.lr, recipe, transform, notes, bool(given))
    if not own:
        if found.lr is not None:
            recipe["train"] = recipe["train"] | {"lr": found.lr}
        corners = found.align_corners
        dataset = _recipe_facts(dataset, Known(dsa="auto", align_corners=corners))
    return distilled_set.validate(_recipe_facts(dataset, known), where)


def _in_nets_space(
    found: Found, known: Known, transform: Transform, where: str
) -> tuple[np.ndarray, list[str]]:
    """Return the images in a net's input space, and notes on what was inferred from their values.

    Raises:
      BadInput: the values fit neither space, or both and ``known.space`` is not given.
    """
    if known.space not in (None, "net", "pixels"):
        raise BadInput("space", f"{known.space!r}", "net or pixels")
    images, space, assumed = found.images, known.space or found.space, []
    low, high = images.min(), images.max()
    seen = f"{images.dtype} images from {low:g} to {high:g}"
    if images.dtype.kind in "iu":
        if low < 0 or high > 255:
            raise BadInput(where, seen, "whole numbers are pixels from 0 to 255; others as floats")
        if known.space == "net":
            raise BadInput(where, f"{seen}, which are pixels", "leave out space=net")
        assumed, space = [f"{seen}: taken as pixels, divided by 255 and normalised"], "pixels"
        images = images.astype(np.float32) / np.float32(255)
    elif not space and low >= 0 and high > 0:
        # Normalised or whitened images have values on both sides of 0.
        raise BadInput(
            where,
            f"{seen}, none below 0, as pixels have them",
            "--config.space=pixels where they are pixels (from 0 to 1, or to 255), "
            "--config.space=net where nets are fed them so; in Python space='pixels' or 'net'",
        )
    elif not space and low < 0 and max(-low, high) <= 1:
        assumed = [f"{seen}: taken as nets are fed them (space=net)"]
    elif space == "pixels" and high > 1 and low >= 0 and _bytes(images, high):
        assumed = [f"{seen}: taken as pixels of 0 to 255, divided by 255"]
        images = images / np.float32(255)
    elif space == "pixels" and max(-low, high) > _BRIGHT:
        raise BadInput(where, f"{seen}, given as pixels", "pixels from 0 to 1, or from 0 to 255")
    images = np.asarray(images, np.float32)
    return np.asarray(
        transform.forward(images), np.float32
    ) if space == "pixels" else images, assumed


def _bytes(images: np.ndarray, high: float) -> bool:
    """True if non-negative pixels are on the scale to 255 rather than to 1."""
    return high <= 255 and (high > _BRIGHT or bool((images == np.floor(images)).all()))


def override(dataset: DistilledSet, known: Known, where: str) -> DistilledSet:
    """Override a jdd set's recipe with known facts; refuse facts that contradict its images."""
    recipe = dataset.recipe
    if known.dataset not in (None, recipe["dataset"]):
        raise BadInput(
            where,
            f"was made from {recipe['dataset'] or 'an unnamed dataset'}",
            f"leave out dataset={known.dataset}",
        )
    kind = dataset.transform.kind
    if known.zca is not None and whitening_kind(known.zca) != kind:
        found = f"whitened ({kind})" if dataset.transform.whitens else "not whitened"
        raise BadInput(where, f"its images are {found}", f"leave out zca={known.zca}")
    for name in ("class_names", "space", "label_kind", "label_order", "item"):
        if getattr(known, name) is not None:
            raise BadInput(where, f"a jdd set says its {name} itself", f"leave out {name}")
    if recipe["train"]["order"] == "stored":
        for name in ("batch", "steps", "dsa"):
            if getattr(known, name):
                raise BadInput(where, "its views and their batches are stored", f"leave out {name}")
    return distilled_set.validate(_recipe_facts(dataset, known), where)


def _recipe_facts(dataset: DistilledSet, known: Known) -> DistilledSet:
    """Replace the recipe's training options by those in ``known``."""
    recipe = distilled_set.merge(dataset.recipe, {})
    train, augment, lr = recipe["train"], recipe["augment"], dataset.lr
    if known.method is not None:
        recipe["method"] = known.method
    if known.net is not None or known.net_options is not None:
        recipe["net"] = {
            "name": known.net or recipe["net"]["name"],
            "options": dict(known.net_options or {}),
        }
    if known.lr is not None:
        if not 0 < float(known.lr) < np.inf:
            raise BadInput("lr", f"{known.lr}", "a positive number")
        train["lr"] = float(known.lr)
        lr = None if lr is None else float(known.lr)
    if known.batch is not None:
        train["batch"] = int(known.batch)
    if known.epochs is not None:
        # The published schedule: E + 1 epochs, the rate drops after epoch E // 2 + 1.
        extra = 0 if train["order"] == "stored" else 1
        train["epochs"], train["passes"] = int(known.epochs), int(known.epochs) + extra
        if train["drop"]:
            train["drop"]["after_epoch"] = int(known.epochs) // 2 + 1
        train["steps"] = None
    if known.steps is not None:
        train["steps"] = int(known.steps) or None
    if known.dsa is not None:
        strategy = known.dsa
        if strategy == "auto":
            facts = lookup(recipe["dataset"])
            strategy = facts.dsa if facts else default_dsa(dataset.images.shape[-1])
        none = strategy in ("", "none")
        augment.update(name="none" if none else "dsa", strategy="" if none else strategy)
    if known.align_corners is not None:
        augment["align_corners"] = bool(known.align_corners)
    return dataset._replace(recipe=recipe, lr=lr)


def _labels(
    found: Found, known: Known, names: tuple[str, ...], classes: int, where: str
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Return labels, class names and notes, from the parts of them that the set has."""
    labels = found.labels
    if found.folders is not None:
        return _folder_labels(found.folders, names, known.dataset or "", where)
    if labels is not None:
        if names or classes or labels.size == 0:
            return labels, names or tuple(str(c) for c in range(classes or 1)), ()
        n, top = len(found.images), labels.shape[1] if labels.ndim == 2 else labels.max() + 1
        if labels.ndim != 2 and not top <= n:  # a damaged label does not name 10^9 classes
            raise BadInput(where, f"labels up to {labels.max()}, {n} images", "give class_names")
        return labels, tuple(str(c) for c in range(int(top))), ()
    classes = len(names) or classes
    n, order = len(found.images), known.label_order or "class"
    if order not in ("class", "cycle"):
        raise BadInput("label_order", f"{order!r}", "class (0 0 1 1 ..) or cycle (0 1 .. 0 1 ..)")
    if not classes or n % classes:
        raise BadInput(
            where,
            f"has no labels and {n} images, not the same number for each of {classes} classes",
            "put its labels file next to it",
        )
    each = n // classes
    labels = np.arange(n) // each if order == "class" else np.arange(n) % classes
    notes: tuple[str, ...] = ()
    if known.label_order is None:
        if found.siblings:
            others = ", ".join(found.siblings[:3])
            raise BadInput(
                where,
                f"has no labels, and {others} next to it may be other parts of one set: {n} images "
                f"need not be {classes} classes of {each}",
                "put its labels file next to it, or copy it to a folder of its own",
            )
        notes = (f"no labels with {n} images: taken as {classes} classes of {each}, one by one",)
    return labels, names or tuple(str(c) for c in range(classes)), notes


def _folder_labels(
    folders: tuple[str, ...], names: tuple[str, ...], dataset: str, where: str
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    """Number class folders by the class names, or in sorted order without class names."""
    present = class_names.ordered(folders)
    if names:
        found = class_names.match(present, names, where, dataset or "the set")
        return np.asarray([found.labels[name] for name in folders]), names, found.notes
    number = {name: label for label, name in enumerate(present)}
    return np.asarray([number[name] for name in folders]), class_names.unnumbered(present), ()


def _label_kind(labels: np.ndarray, known: Known, found: Found, where: str) -> str:
    if labels.ndim != 2 or labels.size == 0:
        if known.label_kind not in (None, "hard"):
            raise BadInput(where, "has hard labels", f"leave out label_kind={known.label_kind}")
        return "hard"
    if known.label_kind or found.label_kind:
        return known.label_kind or found.label_kind
    total = labels.sum(axis=1, dtype=np.float64)
    sums = np.allclose(total, 1.0, atol=1e-3) and labels.min() >= -_ROUNDING
    return "probabilities" if sums else "logits"


def _transform(found: Found, known: Known, facts: Facts | None, where: str) -> Transform:
    """Return the transform from pixels to the set's space: as given, or from the table."""
    given = known.transform
    if known.zca is not None:
        kind = whitening_kind(known.zca)
    elif found.recipe is not None:
        stated = found.recipe["whitening"]
        kind = next((kind for kind, name in NAMES.items() if name == stated), "kornia")
    else:
        kind = "none" if given is None else given.kind
    if kind != "none":
        if given is None or given.kind != kind:
            raise NeedsTransform(
                where,
                f"its images are whitened ({kind}), and the whitening is not in the file",
                "give the dataset's (its images are needed to compute it)",
            )
        return given
    if given is not None and not given.whitens:
        return given
    stats = (found.recipe or {}).get("normalisation", {})
    mean, std = stats.get("mean") or (facts.mean if facts else ()), stats.get("std")
    std = std or (facts.std if facts else ())
    if not mean or not std:
        raise NeedsTransform(
            where,
            f"mean and std of {facts.name if facts else 'its dataset'} are not in the table",
            "give the transform of the real data (a known dataset, or its images)",
        )
    return normalisation(np.asarray(mean), np.asarray(std))
