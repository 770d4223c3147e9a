"""Load distilled sets of any supported format; export them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from jdd import memory
from jdd.errors import BadInput, nearest
from jdd.evaluation import train_eval
from jdd.interop import (
    class_folders,
    ddranking,
    figures,
    foreign,
    generator_folder,
    huggingface_folder,
    safetensors_files,
    torch_files,
)
from jdd.product import distilled_set, files
from jdd.product.distilled_set import DistilledSet
from jdd.product.files import AnyProduct, diverged, set_path
from jdd.product.generator import GeneratorSet
from jdd.product.pairs import PairSet

LOADS = (
    "a run's folder, a jdd .npz, .pt or .safetensors, an MTT or DC .pt, or a folder, .zip or .tar "
    "of class folders"
)
ARCHIVES = (".zip", ".tar", ".xz", ".gz", ".tgz")
FORMATS = ("npz", "png", "safetensors", "pt", "ddranking", "huggingface", "figures", "weights")


def load(path: str | os.PathLike[str], **known: Any) -> AnyProduct:
    """Load a distilled set from a file or folder of any supported format.

    Args:
      path: a run's folder, a jdd set (.npz, .pt, .safetensors), MTT's ``images_best.pt`` with
        labels and learning rate next to it (or their folder), DC's, DSA's or DM's ``res_*.pt``, or
        class folders of images (a directory, .zip or .tar).
      known: fields of ``Known``. Fields on training replace those of the set's recipe; fields on
        the images may not contradict a jdd set.

    Returns:
      The set. Assumptions made from the values of foreign images are listed in ``notes`` of its
      recipe.

    Raises:
      BadInput: the file cannot be read, would need unpickling, holds numbers that result only from
        damage or a diverged run, or too little is known of it.
    """
    for name in known:
        if name not in foreign.Known._fields:
            guess = nearest(name, foreign.Known._fields)
            hint = (
                f"did you mean {guess}?" if guess else f"one of {', '.join(foreign.Known._fields)}"
            )
            raise BadInput(name, "no such fact about a set", hint)
    facts, path = foreign.Known(**known), set_path(path)
    where = str(path)
    if not path.exists():
        raise BadInput(where, "no such file or folder", LOADS)
    if path.is_file() and path.suffix.lower() not in ARCHIVES:
        memory.validate_file_size(path, "a set that fits into memory is needed")
    found = _read(path, facts)
    if words := diverged(found.recipe):
        found = found._replace(notes=(*found.notes, words))
    if not isinstance(found, DistilledSet):
        return found
    try:
        return distilled_set.plausible(found, where)
    except BadInput as error:
        if not words:
            raise
        raise BadInput(where, f"{error.found}; {words}", "a set of another run") from None


def _read(path: Path, facts: foreign.Known) -> AnyProduct:
    where, kind = str(path), path.suffix.lower()
    if files.kind(path) == "generator" and path.is_dir():
        return _unchanged(generator_folder.read(path), facts, where)
    release = torch_files.find(path) if path.is_dir() else None
    if kind in (".pt", ".pth") or release:
        found = torch_files.read(release or path, facts.item)
        if isinstance(found, DistilledSet):
            return foreign.override(found, facts, where)
        known = foreign.Found(
            found.images,
            found.labels,
            lr=found.lr,
            space="pixels" if found.pixels else "",
            align_corners=found.align_corners,
            siblings=torch_files.siblings(release or path),
            notes=found.notes,
        )
        return foreign.adopt(known, facts, where)
    if path.is_dir() or kind in ARCHIVES:
        return foreign.adopt(_folder(path), facts, where)
    if kind == ".npz":
        product = files.load(path)
        if isinstance(product, DistilledSet):
            return foreign.override(product, facts, where)
        return _unchanged(product, facts, where)
    if kind == ".safetensors":
        return foreign.override(safetensors_files.read(path), facts, where)
    raise BadInput(where, f"a {kind or 'nameless'} file", LOADS)


def _unchanged(product: AnyProduct, facts: foreign.Known, where: str) -> AnyProduct:
    """Return a product whose file states all facts; refuse others."""
    for name, value in facts._asdict().items():
        if value is not None:
            raise BadInput(where, f"a product of kind {product.kind!r}", f"leave out {name}")
    return product


def export(
    dataset: AnyProduct,
    path: str | os.PathLike[str],
    fmt: str | None = None,
    images: int | None = None,
) -> Path:
    """Write the set for other programs; ``fmt`` defaults to the suffix of ``path``.

    - 'npz': jdd's own format.
    - 'png': class folders of pictures and a ``recipe.json`` (rounded to 256 levels).
    - 'safetensors': the same arrays as the .npz, recipe and label kind in the metadata.
    - 'pt': a dict with images [n, c, h, w], labels, label_kind, lr, recipe (JSON text), mean, std
      and, where whitened, zca_mean and zca_matrix over [c, h, w] flattened, to be applied after
      mean and std (and zca_image with KIP's whitening). Read it with
      ``torch.load(path, weights_only=True)``.
    - 'ddranking': a folder of images.pt, labels.pt and lr.pt, as DD-Ranking's demos read them
      (``interop/ddranking.py``), and recipe.json.
    - 'huggingface': a folder of a Parquet file with pictures and labels, distilled.npz and a card,
      README.md (``interop/huggingface_folder.py``).
    - 'figures': a folder of the image grid as PDF and PNG; ``jdd.export`` of a run's distilled.npz
      adds the accuracy curve and the comparison bars (``interop/figures.py``). Also of pairs.
    - 'weights': of a generator, a folder with its weights, their description and programs that load
      them (``interop/generator_folder.py``). Its 'png' has ``images`` of each class, by default as
      many as an epoch.

    Raises:
      BadInput: unknown format, missing package, or ``path`` cannot be written.
    """
    path = Path(path)
    fmt = fmt or path.suffix.lstrip(".").lower() or "png"
    if fmt not in FORMATS:
        raise BadInput("format", f"{fmt!r}", f"one of {', '.join(FORMATS)}")
    if isinstance(dataset, GeneratorSet):
        return generator_folder.export(dataset, path, fmt, images)
    if images is not None:
        found = f"given for a product of kind {dataset.kind!r}"
        raise BadInput("--images", found, "leave it out: a generator draws them")
    if fmt == "weights":
        found = f"a product of kind {dataset.kind!r} as weights"
        raise BadInput("format", found, "a generator has weights")
    if isinstance(dataset, PairSet) and fmt == "figures":
        return figures.write(dataset, path).folder
    if not isinstance(dataset, DistilledSet):
        if fmt != "npz":
            found = f"a product of kind {dataset.kind!r} as {fmt}"
            also = " or figures" * isinstance(dataset, PairSet)
            allowed = f"npz{also}: the other formats hold fixed sets of images"
            raise BadInput("format", found, allowed)
        return dataset.save(path)
    dataset = distilled_set.validate(dataset, str(path))
    if dataset.weights is not None and fmt not in ("npz", "figures", "huggingface"):
        raise BadInput("format", f"a set with weights as {fmt}", "npz: the others hold no weights")
    if fmt == "npz":
        return dataset.save(path)
    if fmt == "png":
        return class_folders.write(dataset, path)
    if fmt == "figures":
        return figures.write(dataset, path).folder
    if fmt == "safetensors":
        return safetensors_files.write(dataset, path)
    if fmt == "huggingface":
        return huggingface_folder.write(dataset, path)
    if fmt == "ddranking":
        if dataset.recipe["train"]["order"] == "stored":
            found = "a set of stored labels, one for every view"
            raise BadInput("--format=ddranking", found, "png, safetensors, pt or npz")
        # Its layout has no recipe: images that stand for several are written decoded.
        return ddranking.write(train_eval.formed(dataset), path)
    return torch_files.write(dataset, path)


def _folder(path: Path) -> foreign.Found:
    """Read class folders, and the ``recipe.json`` of jdd's own export if there is one."""
    read = class_folders.read(path)
    images = read.pixels.astype(np.float32) / 255.0
    side = read.sidecar
    if side is None:
        folders = tuple(Path(file).parent.name for file in read.files)
        return foreign.Found(images, None, space="pixels", folders=folders, notes=tuple(read.notes))
    where = f"{path}:{class_folders.SIDECAR}"
    recipe = distilled_set.read_recipe(json.dumps(side["recipe"]), where)
    try:
        labels = np.asarray(side.get("labels"))
    except ValueError:  # rows of different lengths
        labels = np.asarray(None)
    if labels.dtype.kind not in "iuf":
        raise BadInput(where, "labels are not numbers", "a number or a row for each image")
    lr = side.get("lr")
    if lr is not None and (isinstance(lr, bool) or not isinstance(lr, int | float)):
        raise BadInput(where, f"lr is {lr!r}", "a number, or null where none was learned")
    return foreign.Found(
        images,
        labels,
        lr=None if lr is None else float(lr),
        space="pixels",
        recipe=recipe,
        label_kind=str(side.get("label_kind", "")) if labels.ndim == 2 else "",
        notes=tuple(read.notes),
    )
