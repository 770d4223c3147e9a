"""Captions from a file: rows of (image file, caption, split), whatever the layout of the file.

Layouts, recognised by content:
  Karpathy's JSON   {"images": [{"filename", "filepath"?, "split"?, "sentences": [{"raw"}]}]}
  COCO's JSON       {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
  a list in JSON    [{"file_name", "caption" or "captions", "split"?}], or {"file": caption(s)}
  JSON lines        one object of that list a line
  CSV, TSV          with a header that names the columns, or two columns: file, caption
  Flickr's tokens   file#0<TAB>caption
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from jdd.errors import BadInput

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv", ".txt")
# Names of columns and fields, the most specific first.
FILES = ("file_name", "filename", "file", "image_name", "image_path", "image", "img", "path")
CAPTIONS = ("caption", "captions", "raw", "text", "sentence", "sentences", "comment", "description")
_SPLITS = {
    "train": "train", "training": "train", "restval": "train",
    "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test", "": "",
}  # fmt: skip
_EXAMPLE = "a CSV with a header 'file,caption', or Karpathy's JSON"


class Row(NamedTuple):
    """One caption: its image's file as the file names it, its split ("" if none), its place."""

    file: str
    caption: str
    split: str
    place: str


def parse(data: bytes, where: str) -> list[Row]:
    """Return the rows of a file of captions, in its order. Empty captions are rows too.

    Raises:
      BadInput: not UTF-8, no known layout, an unknown split, or no row.
    """
    text = _text(data, where)
    rows = list(_rows(text, where))
    if not rows:
        raise BadInput(where, "no captions", f"give {_EXAMPLE}")
    return rows


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        found = f"line {line} is not UTF-8 (byte 0x{data[error.start]:02x})"
        raise BadInput(where, found, "save the file as UTF-8") from None


def _rows(text: str, where: str) -> Iterator[Row]:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        try:
            whole = json.loads(text)
        except RecursionError:
            raise BadInput(where, "JSON nested too deeply", f"give {_EXAMPLE}") from None
        except json.JSONDecodeError as error:
            if start == "[" or "\n" not in text.strip():
                found = f"line {error.lineno}: no JSON ({error.msg})"
                raise BadInput(where, found, f"give {_EXAMPLE}") from None
            return _lines(text, where)
        return _json(whole, where)
    return _table(text, where)


def _lines(text: str, where: str) -> Iterator[Row]:
    for i, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                entry = json.loads(line)
            except RecursionError:
                raise BadInput(where, f"line {i}: nested too deeply", f"give {_EXAMPLE}") from None
            except json.JSONDecodeError as error:
                found = f"line {i}: no JSON ({error.msg})"
                raise BadInput(where, found, f"give {_EXAMPLE}") from None
            yield from _entry(entry, f"line {i}", where)


def _json(whole: Any, where: str) -> Iterator[Row]:
    if isinstance(whole, list):
        for i, entry in enumerate(whole, 1):
            yield from _entry(entry, f"entry {i}", where)
    elif isinstance(whole.get("annotations"), list) and isinstance(whole.get("images"), list):
        yield from _coco(whole, where)
    elif isinstance(whole.get("images"), list):
        for i, entry in enumerate(whole["images"], 1):
            yield from _entry(entry, f"image {i}", where)
    elif any(name in whole for name in FILES):  # one line of JSON lines
        yield from _entry(whole, "line 1", where)
    else:
        for file, captions in whole.items():
            for caption in _captions(captions, f"entry {file!r}", where):
                yield Row(file, caption, "", f"entry {file!r}")


def _coco(whole: Mapping[str, Any], where: str) -> Iterator[Row]:
    try:
        files = {image["id"]: str(image["file_name"]) for image in whole["images"]}
        for i, found in enumerate(whole["annotations"], 1):
            caption = str(found["caption"])
            yield Row(files[found["image_id"]], caption, "", f"annotation {i}")
    except (KeyError, TypeError) as error:
        found = f"an entry without {error}"
        allowed = "images with id and file_name, annotations with image_id and caption"
        raise BadInput(where, found, allowed) from None


def _entry(entry: Any, place: str, where: str) -> Iterator[Row]:
    if not isinstance(entry, Mapping):
        raise BadInput(where, f"{place}: {entry!r:.60}", "an object with a file and a caption")
    file, captions = _first(entry, FILES), _first(entry, CAPTIONS)
    if not isinstance(file, str) or captions is None:
        names = ", ".join(map(str, entry)) or "nothing"
        allowed = "a field file_name (text) and a field caption or captions"
        raise BadInput(where, f"{place} has {names}", allowed)
    folder = entry.get("filepath")  # Karpathy's COCO
    if isinstance(folder, str) and folder:
        file = f"{folder}/{file}"
    split = split_of(str(entry.get("split") or ""), place, where)
    for caption in _captions(captions, place, where):
        yield Row(file, caption, split, place)


def _captions(found: Any, place: str, where: str) -> Iterable[str]:
    several = found if isinstance(found, list) else [found]
    for one in several:
        words = _first(one, CAPTIONS) if isinstance(one, Mapping) else one
        if not isinstance(words, str):
            raise BadInput(where, f"{place}: caption {one!r:.60}", "a text, or a list of texts")
        yield words


def _first(entry: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((entry[name] for name in names if entry.get(name) is not None), None)


def split_of(name: str, place: str, where: str) -> str:
    """Return "train", "val", "test" or "" for the name of a split."""
    found = _SPLITS.get(name.strip().lower())
    if found is None:
        raise BadInput(where, f"{place}: split {name!r}", "train, val or test")
    return found


_TOKEN = re.compile(r"#(enc#)?\d+$")


class _Columns(NamedTuple):
    """Where a table has its columns; ``split`` is None where it has none."""

    file: int = 0
    caption: int = 1
    split: int | None = None
    total: int = 2


def _table(text: str, where: str) -> Iterator[Row]:
    """Yield the rows of a CSV or TSV: by its header, else of two columns."""
    first = text.lstrip("\n").partition("\n")[0]
    mark = next((c for c in ("\t", ",", ";", "|") if c in first), "")
    if not mark:
        raise BadInput(where, f"line 1 is {first!r:.60}", f"give {_EXAMPLE}")
    # Quotation marks of Flickr's tokens quote nothing.
    plain = mark == "\t" and '"' not in first
    lines = io.StringIO(text, newline="")
    reader = csv.reader(
        lines,
        delimiter=mark,
        quotechar=None if plain else '"',
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        skipinitialspace=True,
    )
    columns: _Columns | None = None
    try:
        for cells in reader:
            place = f"line {reader.line_num}"
            if not any(cell.strip() for cell in cells):
                continue
            if columns is None:
                columns = _header(cells, where)
                if columns is not None:
                    continue
                columns = _Columns()
            yield _cells(cells, columns, mark, place, where)
    except csv.Error as error:
        raise BadInput(where, f"line {reader.line_num}: {error}", f"give {_EXAMPLE}") from None


def _header(cells: list[str], where: str) -> _Columns | None:
    """Return the columns that a first line names; None if it is a row of two columns."""
    names = [cell.strip().lower() for cell in cells]
    file, caption = (
        next((names.index(n) for n in wanted if n in names), None) for wanted in (FILES, CAPTIONS)
    )
    if file is not None and caption is not None:
        split = names.index("split") if "split" in names else None
        return _Columns(file, caption, split, len(cells))
    if "." not in cells[0]:
        found = f"a header of {', '.join(cells)}"
        raise BadInput(where, found, "columns called file and caption, and split if it has one")
    return None


def _cells(cells: list[str], columns: _Columns, mark: str, place: str, where: str) -> Row:
    if len(cells) <= max(columns.file, columns.caption):
        found = f"{place} has {len(cells)} column{'s' * (len(cells) != 1)}"
        raise BadInput(where, found, "a file and a caption")
    caption = cells[columns.caption]
    if columns.caption == columns.total - 1:  # commas of a caption that is not quoted
        caption = f"{mark} ".join(cell.strip() for cell in cells[columns.caption :])
    elif len(cells) != columns.total:
        found = f"{place} has {len(cells)} columns, the header {columns.total}"
        raise BadInput(where, found, "quote captions that have commas")
    split = "" if columns.split is None else cells[columns.split]
    file = _TOKEN.sub("", cells[columns.file].strip())
    return Row(file, caption, split_of(split, place, where), place)
