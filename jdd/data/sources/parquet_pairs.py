"""Images and their captions from Hugging Face's Parquet files, read a few rows at a time.

A row has an image, as an encoded file ({"bytes", "path"}, or bytes), and one caption or several: a
text, a list of texts, objects with a text, or columns ``caption_0``, ``caption_1``, ... Rows with
the same bytes in one split are captions of one image.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd import memory
from jdd.data import cache
from jdd.data.sources import pixels
from jdd.data.sources.caption_files import CAPTIONS, split_of
from jdd.data.sources.captioned import Captioned
from jdd.data.sources.decoding import Item, decode_all
from jdd.data.sources.image_buffer import Held
from jdd.data.sources.pixels import Decoded
from jdd.data.sources.request import Request
from jdd.errors import BadInput
from jdd.storage import regular

_RULES = 1  # raised when equal files get other pairs
_ROWS = 64  # rows read at a time
_IMAGES = ("image", "images", "img", "jpg", "png", "picture", "photo")
_NUMBERED = re.compile(r"(caption|captions|text|sentence)_?\d+$")
_FILE_SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing")
_INSTALL = "pip install 'jdd[text]', which brings pyarrow"


class _Columns(NamedTuple):
    """The columns of images, captions (one or several) and splits ('' without one)."""

    image: str
    captions: tuple[str, ...]
    split: str


class _Pair(NamedTuple):
    """An image's bytes, one of its captions, its split, and the row of both.

    ``apart``: the image lies in a file of its own.
    """

    image: bytes
    caption: str
    split: str
    place: str
    apart: bool


def is_parquet(path: Path) -> bool:
    """Return whether a path is a Parquet file, or a folder that holds some at any depth."""
    if path.is_file():
        return path.suffix.lower() == ".parquet"
    return path.is_dir() and next(path.rglob("*.parquet"), None) is not None


def read(request: Request, image: str = "", caption: str = "") -> Captioned:
    """Read the images and captions of a Parquet file or of all those below a folder.

    Splits are those of a column ``split``, else of the files' or their folders' names; the only
    split is the training data. Rows without an image, without a caption or with the same words of
    the same image are left out and noted.

    Args:
      image, caption: the columns; "" to find them by type and name.

    Raises:
      BadInput: pyarrow is not installed, a damaged file, no such columns or several that may be
        meant, an image that cannot be decoded, a caption that is not UTF-8, an unknown split, or
        no pair.
    """
    names = [cache.stamp(request.file), request.size, image, caption, pixels.RULES, _RULES]
    file = cache.file(request.cache_dir, "parquet-pairs", names)
    memory.validate_file_size(file, "a smaller --config.data.size")
    held = cache.read(file, ("images", "image_of", "texts"))
    if held is not None:
        texts = json.loads(str(held["texts"]))
        files, captions, splits, notes = (tuple(texts[name]) for name in _TEXTS)
        return Captioned(held["images"], files, captions, held["image_of"], splits, notes)
    reader = _Reader(request, image, caption)
    found = reader.read()
    if reader.apart:  # the name of the cache file does not depend on these files
        return found
    listed = {name: list(getattr(found, name)) for name in _TEXTS}
    arrays = {"images": found.images, "image_of": found.image_of}
    failure = cache.write(file, arrays | {"texts": np.array(json.dumps(listed))})
    return found._replace(notes=(*found.notes, *([failure] if failure else [])))


_TEXTS = ("files", "captions", "splits", "notes")


class _Reader:
    """One reading: images of different bytes in order, their captions, and what was left out."""

    def __init__(self, request: Request, image: str, caption: str):
        self._request, self._image, self._caption = request, image, caption
        self._known: dict[tuple[str, bytes], int] = {}  # the image of (split, digest)
        self._places: list[str] = []
        self._splits: list[str] = []
        self._captions: list[dict[str, None]] = []  # of each image, in order
        self._left: dict[str, list[str]] = {}  # places of rows, by why they are left out
        self._pairs = 0
        self.apart = False  # some image lies in a file of its own

    def read(self) -> Captioned:
        """Return all pairs."""
        buffer = Held()
        places = [buffer.add(image) for image in self._decoded()]
        where = self._request.path
        if not places:
            reasons = ", ".join(f"{what} ({rows[0]})" for what, rows in self._left.items())
            raise BadInput(where, f"no pair{f': {reasons}' if reasons else ''}", _NEEDED)
        images, notes = buffer.take(places)
        counts = [len(own) for own in self._captions]
        image_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        words = tuple(words for own in self._captions for words in own)
        return Captioned(
            images, tuple(self._places), words, image_of, tuple(self._splits),
            (*notes, *self._notes()),
        )  # fmt: skip

    def _notes(self) -> list[str]:
        notes = [
            f"{len(rows)} of {self._pairs} captions left out: {what} ({rows[0]})"
            for what, rows in self._left.items()
        ]
        first: dict[bytes, int] = {}
        again = [
            (first[digest], i)
            for (_, digest), i in self._known.items()
            if first.setdefault(digest, i) != i
        ]
        if again:
            a, b = again[0]
            places = f"{self._places[a]} and {self._places[b]}"
            notes.append(f"images in two splits: {len(again)} (such as {places})")
        return notes

    def _decoded(self) -> Iterator[Decoded]:
        try:
            for _, image in decode_all(self._items(), self._request):
                yield image
        except BadInput as error:
            row = error.allowed.replace("this file", "the image of this row")
            raise BadInput(error.where, error.found, row) from None

    def _items(self) -> Iterator[Item]:
        """Yield every image that is new; note the captions of all."""
        for pair in self._rows():
            self._pairs += 1
            self.apart |= pair.apart
            words = " ".join(pair.caption.split())
            if not pair.image or not words:
                why = "empty" if pair.image else "no image"
                self._left.setdefault(why, []).append(pair.place)
                continue
            key = (pair.split, hashlib.sha256(pair.image).digest())
            at = self._known.setdefault(key, len(self._places))
            if at == len(self._places):
                self._places.append(pair.place)
                self._splits.append(pair.split)
                self._captions.append({})
                yield Item(at, pair.place, pair.image)
            own = self._captions[at]
            if words in own:
                why = "the same words of the same image"
                self._left.setdefault(why, []).append(pair.place)
            own[words] = None

    def _rows(self) -> Iterator[_Pair]:
        """Yield every caption of every row of every file."""
        files = _files(self._request.file)
        named = {file: _split_of_name(file, self._request.file) for file in files}
        alone = len(set(named.values())) == 1  # the only split is the training data
        for file in files:
            where = file.name if len(files) > 1 else self._request.path

            def columns(schema: Any, where: str = where) -> _Columns:
                return _columns(schema, where, self._image, self._caption)

            split = "" if alone else named[file]
            for first, batch, chosen in _batches(file, columns):
                yield from _pairs(batch, chosen, split, where, first, self._request.file)


_NEEDED = "rows with an image and a caption"


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.rglob("*.parquet") if not file.name.startswith("."))


def _split_of_name(file: Path, root: Path) -> str:
    """Return the split that a file's name begins with, or its folder's name; "" for none."""
    inside = file.parent.name if file.parent != root else ""
    for word in (re.split(r"[-_.]", file.name)[0].lower(), inside.lower()):
        if word in _FILE_SPLITS:
            return split_of(word, "", str(file))
    return ""


def _batches(file: Path, columns: Callable[[Any], _Columns]) -> Iterator[tuple[int, Any, _Columns]]:
    """Yield (number of the first row, some rows, their columns) of a Parquet file."""
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise BadInput(str(file), "pyarrow, which reads it, is not installed", _INSTALL) from None
    first = 0
    try:
        with parquet.ParquetFile(file) as opened:
            chosen = columns(opened.schema_arrow)
            names = [name for name in (chosen.image, *chosen.captions, chosen.split) if name]
            for batch in opened.iter_batches(batch_size=_ROWS, columns=names):
                yield first, batch, chosen
                first += batch.num_rows
    except (OSError, ValueError, NotImplementedError) as error:  # ArrowNotImplementedError too
        reason = str(error).partition("\n")[0]
        raise BadInput(str(file), f"cannot be read ({reason})", "a whole Parquet file") from None


def _columns(schema: Any, where: str, image: str, caption: str) -> _Columns:
    """Return the columns by name and type, or as the keys name them."""
    types = importlib.import_module("pyarrow").types

    def holds_image(name: str, kind: Any) -> bool:
        if types.is_struct(kind):
            return bool(kind.get_field_index("bytes") >= 0)
        encoded = types.is_binary(kind) or types.is_large_binary(kind)
        return bool(encoded and name not in (*CAPTIONS, caption))

    names = list(schema.names)
    images = [field.name for field in schema if holds_image(field.name, field.type)]
    numbered = sorted(filter(_NUMBERED.match, names), key=lambda n: int(re.sub(r"\D", "", n)))
    groups = {name: (name,) for name in CAPTIONS if name in names and name not in images}
    groups |= {numbered[0]: tuple(numbered)} if numbered else {}
    groups |= {caption: (caption,)} if caption in names else {}
    likely = [name for name in _IMAGES if name in images][:1] or images
    chosen = _one("image_column", image, images if image else likely, names, where)
    words = _one("caption_column", caption, list(groups), names, where)
    return _Columns(chosen, groups[words], "split" if "split" in names else "")


def _one(key: str, given: str, found: list[str], names: list[str], where: str) -> str:
    """Return the column that a key names, else the only one found."""
    what, listed = ("images" if key == "image_column" else "captions"), ", ".join(names)
    if given:
        if given not in found:
            none = f"{given} is no column of {what} in {where}"
            raise BadInput(f"config.data.{key}", none, f"one of {', '.join(found) or listed}")
        return given
    if len(found) == 1:
        return found[0]
    if found:
        many = f"{', '.join(found)} may all hold {what}"
        raise BadInput(where, many, f"--config.data.{key}={found[0]} to choose one")
    none = f"no column of {what} among {listed}"
    raise BadInput(where, none, f"--config.data.{key}=NAME, one of them")


def _pairs(
    batch: Any, columns: _Columns, split: str, where: str, first: int, root: Path
) -> Iterator[_Pair]:
    """Yield the captions of some rows; "" stands for a caption or an image that is missing."""
    images = batch.column(columns.image)
    texts = [batch.column(name) for name in columns.captions]
    splits = batch.column(columns.split) if columns.split else None
    for i in range(batch.num_rows):
        place = f"{where}, row {first + i}"
        own = split
        if splits is not None:
            own = split_of(str(splits[i].as_py() or ""), f"row {first + i}", where)
        image, apart = _image(images[i].as_py(), root, place)
        words: list[str] = []
        for column in texts:
            try:
                words += _texts(column[i].as_py(), place)
            except UnicodeDecodeError as error:
                found = f"a caption that is not UTF-8 (byte 0x{error.object[error.start]:02x})"
                raise BadInput(place, found, "captions in UTF-8") from None
        for caption in words or [""]:
            yield _Pair(image, caption, own, place, apart)


def _image(value: Any, root: Path, place: str) -> tuple[bytes, bool]:
    """Return the encoded image of a cell, b"" if it has none, and whether it is in its own file."""
    if not isinstance(value, Mapping):
        return bytes(value or b""), False
    if value.get("bytes"):
        return bytes(value["bytes"]), False
    if not value.get("path"):
        return b"", False
    file = regular.inside(root if root.is_dir() else root.parent, str(value["path"]), place)
    try:
        return regular.read_bytes(file), True
    except OSError as error:
        found = f"{file}: {error.strerror}"
        raise BadInput(place, found, "the image in the row, or at its path") from None


def _texts(value: Any, place: str) -> list[str]:
    """Return the captions of a cell: a text, a list, or objects with a field of captions."""
    if value is None:
        return []
    if isinstance(value, bytes):
        return [value.decode("utf-8")]
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        field = next((name for name in CAPTIONS if value.get(name) is not None), None)
        if field is not None:
            return _texts(value[field], place)
    if isinstance(value, list):
        return [words for one in value for words in _texts(one, place) or [""]]
    raise BadInput(place, f"caption {value!r:.60}", "a text, or a list of texts")
