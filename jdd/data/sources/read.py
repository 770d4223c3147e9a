"""Read a request from its source, through the cache, and check it against the facts."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from jdd import memory
from jdd.data import cache
from jdd.data.catalogue import CATALOGUE
from jdd.data.sources import digits, folder, huggingface, npz, pixels, tfds_sets
from jdd.data.sources.image_buffer import Held, Spool
from jdd.data.sources.request import Raw, Request
from jdd.data.streamed import RowSums, Streamed, sums_of
from jdd.errors import BadInput


def read(request: Request) -> Raw:
    """Return the images of a request as arrays.

    Decoded image files are stored in the cache under the file's path, size and modification time.
    A streamed request decodes them once into a file in the cache and reads that file.

    Raises:
      BadInput: the source cannot be read, or is not the known dataset that the request names.
    """
    if request.stream:
        raw = _streamed(request)
    elif request.source == "digits":
        raw = _resized(digits.read(), request.size)
    elif request.source == "npz":
        raw = _resized(npz.read(request.file, request.facts), request.size)
    elif request.source == "folder":
        raw = _cached(request, request.file, lambda: folder.read(request, Held()))
    elif request.source == "hf" and not (request.path and request.file.exists()):
        raw = huggingface.read(request, Held())  # of the hub, which has a cache of its own
    elif request.source == "hf":
        raw = _cached(request, request.file, lambda: huggingface.read(request, Held()))
    else:
        prepared = tfds_sets.find(request)
        raw = _cached(request, prepared, lambda: tfds_sets.read(request, prepared, Held()))
    _validate_shape(request, raw)
    return raw._replace(notes=raw.notes + _count_notes(request, raw))


_LAYOUT_RULES = 2  # raised when equal folders get other splits, classes or labels


def _named(request: Request, path: Path) -> list[object]:
    """Return what determines the decoded images of a request."""
    try:
        of_folders = [_LAYOUT_RULES, request.layout] if request.source == "folder" else []
        decoded = [request.name, request.source, request.size, *of_folders]
        return [cache.stamp(path), decoded, pixels.RULES]
    except OSError as error:
        raise BadInput(
            str(path), error.strerror or "cannot be read", "give a readable path"
        ) from None


def _streamed(request: Request) -> Raw:
    """Return images that stay in a file of the cache; decode them into it if it is missing."""
    path = tfds_sets.find(request) if request.source == "tfds" else request.file
    place = cache.place(request.cache_dir, "stream", _named(request, path))
    if not (place / _ABOUT).exists():
        try:
            cache.fill(place, lambda part: _spool(request, path, part))
        except OSError as error:
            raise BadInput(
                "config.data.cache_dir",
                f"{place.parent} cannot be written ({error.strerror or error})",
                "a folder with room for the decoded images, one byte a pixel and channel",
            ) from None
    if (about := _about(place)) is None:  # damaged: made again from the source
        shutil.rmtree(place)
        cache.fill(place, lambda part: _spool(request, path, part))
        about = _about(place)
    if about is None:
        raise BadInput(str(place), "damaged as soon as it is written", "check the disk")
    shape, sums = tuple(map(int, about["shape"])), about.get("sums")
    pixels = np.memmap(place / _PIXELS, np.uint8, "r", shape=shape)
    known = None if sums is None else RowSums(sums, place / _PIXELS)
    for split in ("train", "val", "test"):
        if f"{split}_rows" in about:
            rows = about.pop(f"{split}_rows")
            images = Streamed(pixels, rows, name=place.name, sums=known)
            about[f"{split}_images"] = images  # type: ignore[assignment]
    return _unpack(about)


def _about(place: Path) -> cache.Arrays | None:
    """Return what is stored next to the pixels; None if it, or the file of pixels, is damaged.

    All pixels of a small file are compared with their checksums; of a large one each when read.
    """
    about = cache.read(place / _ABOUT, ("shape", "train_rows", "train_labels", "class_names"))
    file = place / _PIXELS
    if about is None or not file.is_file():
        return None
    shape, size = tuple(map(int, about["shape"])), file.stat().st_size
    if size != math.prod(shape):
        return None
    if "sums" in about and size <= _SMALL:
        pixels = np.memmap(file, np.uint8, "r", shape=shape)
        if not np.array_equal(sums_of(pixels), about["sums"]):
            return None
    return about


_SMALL = 1 << 30  # bytes of pixels that are all compared when a run starts
_PIXELS, _ABOUT = "pixels.u8", "about.npz"  # [n, h, w, c]; the splits' rows of it, and the rest


def _spool(request: Request, path: Path, part: Path) -> None:
    """Decode a request's images, one after another, into the two files of a streamed set."""
    spool = Spool(part / _PIXELS)
    try:
        if request.source == "npz":
            raw = npz.read(path, request.facts, spool, request.size)
        elif request.source == "folder":
            raw = folder.read(request, spool)
        elif request.source == "hf":
            raw = huggingface.read(request, spool)
        else:
            raw = tfds_sets.read(request, path, spool)
    finally:
        spool.close()
    spool.finish()
    about = {key.replace("_images", "_rows"): array for key, array in _pack(raw).items()}
    about["shape"] = np.array([spool.count, *spool.shape], np.int64)
    about["sums"] = sums_of(np.memmap(part / _PIXELS, np.uint8, "r", shape=tuple(about["shape"])))
    if failure := cache.write(part / _ABOUT, about):
        raise OSError(failure)


def _cached(request: Request, path: Path, decode: Callable[[], Raw]) -> Raw:
    file = cache.file(request.cache_dir, "decoded", _named(request, path))
    memory.validate_file_size(file, "--config.data.stream=true leaves the images on disk")
    arrays = cache.read(file, ("train_images", "train_labels", "class_names", "notes"))
    if arrays is not None:
        return _unpack(arrays)
    raw = decode()
    note = cache.write(file, _pack(raw))
    return raw._replace(notes=raw.notes + ((note,) if note else ()))


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
    squeezed = pixels.squeezed(raw.splits["train"][0].shape, size)
    return raw._replace(
        splits=splits, scale=pixels.scale_of(splits["train"][0]), notes=(*raw.notes, *squeezed)
    )


def _validate_shape(request: Request, raw: Raw) -> None:
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
        twins = [
            f.name for f in CATALOGUE.values() if f.shape == facts.shape and f.classes == classes
        ]
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
    # A copy's own validation split was taken from the published training images.
    found = sum(len(raw.splits[s][1]) for s in ("train", "val") if s in raw.splits)
    if found != facts.sizes[0]:
        notes.append(f"{found} training images, {facts.name} has {facts.sizes[0]}: a part of it")
    return tuple(notes)
