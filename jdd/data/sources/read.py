"""Read a request from its source, through the cache, and check it against the facts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jdd.data import cache
from jdd.data.facts import FACTS
from jdd.data.sources import digits, folder, npz, pixels, tfds_sets
from jdd.data.sources.raw import Raw, Request
from jdd.errors import BadInput


def read(request: Request) -> Raw:
    """Return the images of a request as arrays.

    Decoded image files are kept in the cache under the file's path, size and time of change.

    Raises:
      BadInput: the source cannot be read, or is not the known dataset it is said to be.
    """
    if request.source == "digits":
        raw = _resized(digits.read(), request.size)
    elif request.source == "npz":
        raw = _resized(npz.read(request.file, request.facts), request.size)
    elif request.source == "folder":
        raw = _cached(request, request.file, lambda: folder.read(request))
    else:
        prepared = tfds_sets.find(request)
        raw = _cached(request, prepared, lambda: tfds_sets.read(request, prepared))
    _check_shape(request, raw)
    return raw._replace(notes=raw.notes + _count_notes(request, raw))


def _cached(request: Request, path: Path, decode: Callable[[], Raw]) -> Raw:
    options = [request.name, request.source, request.size]
    try:
        file = cache.file(request.cache_dir, "decoded", [cache.stamp(path), options])
    except OSError as error:
        raise BadInput(
            str(path), error.strerror or "cannot be read", "give a readable path"
        ) from None
    arrays = cache.read(file, ("train_images", "train_labels", "class_names", "notes"))
    if arrays is not None:
        return _unpack(arrays)
    raw = decode()
    told = cache.write(file, _pack(raw))
    return raw._replace(notes=raw.notes + ((told,) if told else ()))


def _pack(raw: Raw) -> cache.Arrays:
    arrays = {"class_names": np.array(raw.class_names), "notes": np.array(json.dumps(raw.notes))}
    for split, (images, labels) in raw.splits.items():
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return arrays


def _unpack(arrays: cache.Arrays) -> Raw:
    splits = {
        split: (arrays[f"{split}_images"], arrays[f"{split}_labels"])
        for split in ("train", "val", "test")
        if f"{split}_images" in arrays and f"{split}_labels" in arrays
    }
    names = tuple(str(name) for name in arrays["class_names"])
    return Raw(splits, names, 255.0, tuple(json.loads(str(arrays["notes"]))))


def _resized(raw: Raw, size: int) -> Raw:
    if not size or raw.splits["train"][0].shape[1:3] == (size, size):
        return raw
    splits = {}
    for split, (images, labels) in raw.splits.items():
        splits[split] = (pixels.resize(images, raw.scale, size), labels)
    return raw._replace(splits=splits, scale=pixels.scale_of(splits["train"][0]))


def _check_shape(request: Request, raw: Raw) -> None:
    facts, shape = request.facts, raw.splits["train"][0].shape[1:]
    if facts is None:
        return
    where = request.path or request.name
    wanted = (request.size, request.size, facts.shape[2]) if request.size else facts.shape
    if shape != wanted:
        raise BadInput(
            where,
            f"images are {_by(shape)}",
            f"{facts.name} has {_by(facts.shape)}; give --config.data.size={facts.shape[0]} "
            "to resize, or a name of your own to use them as they are",
        )
    classes = len(raw.class_names)
    if classes != facts.classes:
        twins = [f.name for f in FACTS.values() if f.shape == facts.shape and f.classes == classes]
        other = f"is it {twins[0]}?" if twins else "give it a name of your own"
        raise BadInput(where, f"{classes} classes", f"{facts.name} has {facts.classes}; {other}")


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in shape)


def _count_notes(request: Request, raw: Raw) -> tuple[str, ...]:
    facts = request.facts
    if facts is None:
        return ()
    notes = [facts.note] if facts.note else []
    if request.size and request.size != facts.shape[0]:
        notes.append(f"resized to {request.size}x{request.size}: not {facts.name} as published")
    # A validation split that a copy brings along was taken from the published training images.
    found = sum(len(raw.splits[s][1]) for s in ("train", "val") if s in raw.splits)
    if found != facts.sizes[0]:
        notes.append(f"{found} training images, {facts.name} has {facts.sizes[0]}: a part of it")
    return tuple(notes)
