"""Images and their captions, from a folder or an archive and a file of captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jdd import memory
from jdd.data import cache
from jdd.data.sources import archive, caption_files, pixels
from jdd.data.sources.archive import Parts
from jdd.data.sources.caption_files import Row
from jdd.data.sources.decoding import Item, decode_all
from jdd.data.sources.image_buffer import Held
from jdd.data.sources.request import Request
from jdd.errors import BadInput
from jdd.storage import regular
from jdd.storage.files import hidden

_RULES = 1  # raised when equal folders get other images


class Captioned(NamedTuple):
    """Images that have captions, as their source has them.

    Fields:
      images: uint8 [n, h, w, c], in the order of their paths.
      files: their paths below the folder, n texts.
      captions: m texts, image by image, an image's own in the order of the file.
      image_of: the row of each caption's image, int32 [m].
      splits: "train", "val" or "test" of each image; "" where the file names none.
      notes: sentences for the user.
    """

    images: np.ndarray
    files: tuple[str, ...]
    captions: tuple[str, ...]
    image_of: np.ndarray
    splits: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read(request: Request, captions: str) -> Captioned:
    """Read images and the captions that name them.

    A caption names its image by its path, by the end of its path or by its file name, with or
    without the suffix. Captions without an image, empty ones and repeated ones are left out and
    noted, as are images without a caption.

    Args:
      request: of a folder or an archive of images.
      captions: the file of captions; "" for the one in the folder or archive.

    Raises:
      BadInput: no images, no or several files of captions, a file of no known layout, a name that
        several images have, or captions of which none has its image.
    """
    images, files, texts, notes = _images(request)
    where, data = _caption_file(request, captions, texts)
    rows = caption_files.parse(data, where)
    found, left_out = _matched(rows, files, where)
    return _joined(images, files, found, [*notes, *left_out])


def _images(request: Request) -> tuple[np.ndarray, list[str], dict[str, bytes], list[str]]:
    """Return decoded images, their paths, the text files next to them, and notes."""
    texts: dict[str, bytes] = {}
    paths: list[Parts] = []

    def wanted(parts: Parts) -> bool:
        return _is(parts, pixels.SUFFIXES) or _is(parts, caption_files.SUFFIXES)

    def items(decoded: bool) -> Iterator[Item]:
        for entry in archive.walk(request.file, wanted):
            if entry.folder or entry.data is None:
                continue
            if _is(entry.parts, caption_files.SUFFIXES):
                texts["/".join(entry.parts)] = entry.data
            elif not decoded:
                place = f"{request.path}:{'/'.join(entry.parts)}"
                yield Item(entry.parts, place, entry.data)

    named = [cache.stamp(request.file), request.size, pixels.RULES, _RULES]
    file = cache.file(request.cache_dir, "captioned", named)
    memory.validate_file_size(file, "a smaller --config.data.size")
    held = cache.read(file, ("images", "files", "notes"))
    if held is not None:
        for _ in items(decoded=True):
            pass
        names = [str(name) for name in held["files"]]
        return held["images"], names, texts, list(json.loads(str(held["notes"])))
    buffer = Held()
    for parts, image in decode_all(items(decoded=False), request):
        buffer.add(image)
        paths.append(parts)
    if not paths:
        raise BadInput(request.path, "no images found", "a folder or archive of .jpg or .png files")
    order = sorted(range(len(paths)), key=lambda i: paths[i])
    images, notes = buffer.take(order)
    names = ["/".join(paths[i]) for i in order]
    arrays = {"images": images, "files": np.array(names), "notes": np.array(json.dumps(notes))}
    failure = cache.write(file, arrays)
    return images, names, texts, [*notes, *([failure] if failure else [])]


def _is(parts: Parts, suffixes: tuple[str, ...]) -> bool:
    return parts[-1].lower().endswith(suffixes) and not any(map(hidden, parts))


_README = ("readme", "license", "licence")


def _caption_file(request: Request, captions: str, texts: dict[str, bytes]) -> tuple[str, bytes]:
    """Return the name and the bytes of the file of captions."""
    if captions:
        path = Path(captions).expanduser()
        if captions in texts and not path.exists():
            return f"{request.path}:{captions}", texts[captions]
        try:
            return captions, regular.read_bytes(path)
        except OSError as error:
            inside = f", or one in {request.path}: {', '.join(sorted(texts)[:4])}" if texts else ""
            raise BadInput(
                "config.data.captions",
                f"{captions}: {error.strerror or 'cannot be read'}",
                f"a file of captions{inside}",
            ) from None
    named = [n for n in texts if not n.rpartition("/")[2].lower().startswith(_README)]
    likely = [n for n in named if "caption" in n.lower()] or named
    if len(likely) == 1:
        return f"{request.path}:{likely[0]}", texts[likely[0]]
    found = f"{len(likely)} files that may hold captions" if likely else "no file of captions"
    allowed = "--config.data.captions=FILE" + (
        f", such as {sorted(likely)[0]}" if likely else ", such as captions.csv"
    )
    raise BadInput(request.path, found, allowed)


def _matched(
    rows: list[Row], files: list[str], where: str
) -> tuple[list[tuple[int, Row]], list[str]]:
    """Return captions with the rows of their images, and notes on those left out."""
    known = _names(files)
    found: list[tuple[int, Row]] = []
    absent, empty, repeated = [], [], []
    seen: set[tuple[int, str]] = set()
    for row in rows:
        name = row.file.replace("\\", "/").removeprefix("./")
        image = known.get(name, known.get(name.rpartition("/")[2]))
        words = " ".join(row.caption.split())
        if image is None:
            absent.append(row)
        elif image < 0:
            raise BadInput(where, f"{row.place}: several images are called {row.file}", "its path")
        elif not words:
            empty.append(row)
        elif (image, words) in seen:
            repeated.append(row)
        else:
            seen.add((image, words))
            found.append((image, row._replace(caption=words)))
    if not found:
        first = absent[0] if absent else rows[0]
        missing = f"no image is called {first.file}" if absent else "every caption is empty"
        raise BadInput(where, f"{first.place}: {missing}", f"files such as {files[0]}")
    notes = [
        f"{len(group)} of {len(rows)} captions left out: {what} ({group[0].place}: {group[0].file})"
        for group, what in (
            (absent, "no such image"),
            (empty, "empty"),
            (repeated, "the same words of the same image"),
        )
        if group
    ]
    return found, notes


def _names(files: Sequence[str]) -> dict[str, int]:
    """Return the image of every name it may be called by; -1 where several images have a name."""
    known: dict[str, int] = {}
    for i, file in enumerate(files):
        parts = file.split("/")
        ends = {"/".join(parts[k:]) for k in range(len(parts))}
        stems = {end.rpartition(".")[0] for end in ends if "." in end.rpartition("/")[2]}
        for name in ends | stems:
            known[name] = -1 if known.get(name, i) != i else i
    known |= {file: i for i, file in enumerate(files)}
    return known


def _joined(
    images: np.ndarray, files: list[str], found: list[tuple[int, Row]], notes: list[str]
) -> Captioned:
    of: dict[int, list[Row]] = {}
    for image, row in found:
        of.setdefault(image, []).append(row)
    used = sorted(of)
    splits = []
    for image in used:
        names = Counter(row.split for row in of[image])
        if len(names) > 1:
            places = (
                of[image][0].place,
                next(r.place for r in of[image] if r.split != of[image][0].split),
            )
            found_ = f"{files[image]} is of {' and of '.join(n or 'no split' for n in names)}"
            raise BadInput("captions", found_, f"one split an image: {' and '.join(places)}")
        splits.append(next(iter(names)))
    if len(used) < len(files):
        first = next(files[i] for i in range(len(files)) if i not in of)
        left = len(files) - len(used)
        notes.append(f"{left} of {len(files)} images left out: no caption (such as {first})")
    rows = [row for image in used for row in of[image]]
    counts = [len(of[image]) for image in used]
    return Captioned(
        images if len(used) == len(files) else images[used],
        tuple(files[i] for i in used),
        tuple(row.caption for row in rows),
        np.repeat(np.arange(len(used), dtype=np.int32), counts),
        tuple(splits),
        tuple(notes),
    )
