"""Datasets of Hugging Face: a folder of ``save_to_disk``, Parquet files, or a name on the hub.

A saved folder and Parquet files are read with pyarrow alone; the hub needs the package ``datasets``
and a network. Images are a column of encoded files ({"bytes", "path"}, or bytes), labels a column
of integers, with the classes' names in the schema's metadata, or of text.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdd.data.sources import pixels
from jdd.data.sources.decoding import Item, decode_all
from jdd.data.sources.image_buffer import ImageBuffer, Splits
from jdd.data.sources.request import Raw, Request
from jdd.errors import BadInput
from jdd.storage import json_files, regular

_SPLITS = {"train": "train", "validation": "val", "valid": "val", "val": "val", "test": "test"}
_LABELS = ("label", "labels", "class", "target", "fine_label")
_NEEDED = "a column of images and a column of labels"


def read(request: Request, buffer: ImageBuffer) -> Raw:
    """Read the images and labels of a dataset.

    Splits named validation and test are the run's; without a split named train, the only split is
    the training data. A split whose labels are all -1 (hidden, as of competitions) is left out.

    Raises:
      BadInput: no dataset there, no such columns, a label outside the classes, a damaged file;
        for the hub, the package or the dataset is missing.
    """
    where = request.path or request.name
    tables = _local(request.file) if request.file.exists() and request.path else _hub(where)
    used = {n: t for n, t in tables.items() if n in _SPLITS} if len(tables) > 1 else tables
    first = tables.get("train", next(iter(tables.values())))
    image, label, names = _columns(first, used, where)
    texts = names is None
    names = names if names is not None else _texts(used, label, where)
    splits: Splits = {}
    notes = []
    for theirs, table in tables.items():
        ours = _SPLITS.get(theirs, "")
        ours = "train" if len(tables) == 1 else ours
        place = f"{where}:{theirs}"
        if not ours or ours in splits:
            notes.append(f"split {theirs} is not used")
            continue
        _validate_split(table, first, image, label, place)
        found = table.column(label).to_pylist()
        if all(value in (-1, None) for value in found):
            notes.append(f"split {theirs} has no labels and is not used")
            continue
        classes = [None if v is None else names.index(str(v)) for v in found] if texts else found
        # Encoded bytes go through the same decoding and checks as files in folders.
        items = _items(table.column(image), classes, place, request.file)
        decoded = [(buffer.add(one), cls) for cls, one in decode_all(items, request)]
        images, seen = buffer.take([at for at, _ in decoded])
        labels = np.array([cls for _, cls in decoded])
        splits[ours] = (images, pixels.validate_labels(labels, len(images), len(names), place))
        notes += [f"{ours}: {note}" for note in seen]
    if "train" not in splits:
        raise BadInput(where, f"splits {', '.join(tables)}", "one of them is train")
    pixels.validate_classes(splits["train"][1], names, where)
    return Raw(buffer.alike(splits), names, 255.0, tuple(notes))


def _validate_split(table: Any, first: Any, image: str, label: str, place: str) -> None:
    """Refuse a split without the columns, or whose labels number other classes than ``first``'s."""
    if label not in table.column_names or image not in table.column_names:
        raise BadInput(place, f"columns {', '.join(table.column_names)}", f"{image}, {label}")
    ours, theirs = (_features(t).get(label, {}).get("names") for t in (first, table))
    if ours and theirs and ours != theirs:
        found = f"classes {', '.join(map(str, theirs[:5]))} ..."
        raise BadInput(place, found, f"those of train, in its order: {', '.join(ours[:5])} ...")


def _local(path: Path) -> dict[str, Any]:
    """Return the tables of a saved folder or of Parquet files, by split."""
    if (path / "dataset_dict.json").is_file():
        listed = _listed(path / "dataset_dict.json", lambda found: list(map(str, found["splits"])))
        return {split: _saved(path / split) for split in listed}
    if (path / "state.json").is_file():
        return {"train": _saved(path)}
    files = [path] if path.is_file() else sorted(path.rglob("*.parquet"))
    if not files:
        found = "no Parquet file, and no folder that save_to_disk wrote"
        raise BadInput(str(path), found, "one of these, or a name on the hub")
    by_split: dict[str, list[Path]] = {}
    for file in files:
        word = re.split(r"[-_.]", file.name)[0].lower()
        word = word if word in _SPLITS else file.parent.name.lower()
        by_split.setdefault(word if word in _SPLITS else "train", []).append(file)
    return {split: _tables(mine, _parquet) for split, mine in by_split.items()}


def _saved(folder: Path) -> Any:
    """Return the table of one split that ``save_to_disk`` wrote."""
    named = _listed(
        folder / "state.json", lambda found: [str(one["filename"]) for one in found["_data_files"]]
    )
    files = [regular.inside(folder, name, str(folder / "state.json")) for name in named]
    return _tables(files, _arrow)


def _listed(file: Path, names: Callable[[Any], list[str]]) -> list[str]:
    """Return the names that a JSON file of ``save_to_disk`` lists, at least one."""
    try:
        found = names(json.loads(regular.read_text(file)))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput(str(file), f"not readable ({error})", "save it again") from None
    if not found:
        raise BadInput(str(file), "it lists none", "a dataset with images")
    return found


def _tables(files: list[Path], read: Any) -> Any:
    pyarrow = importlib.import_module("pyarrow")
    found = []
    for file in files:
        try:
            found.append(read(file))
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            reason = str(error).partition("\n")[0]
            raise BadInput(str(file), f"cannot be read ({reason})", "a whole file") from None
    for file, table in zip(files, found, strict=True):
        if not table.schema.equals(found[0].schema):
            other = ", ".join(f"{f.name} {f.type}" for f in table.schema)
            raise BadInput(str(file), f"columns {other}", f"those of {files[0].name}")
    return found[0] if len(found) == 1 else pyarrow.concat_tables(found)


def _arrow(file: Path) -> Any:
    pyarrow = importlib.import_module("pyarrow")
    return pyarrow.ipc.open_stream(pyarrow.memory_map(str(file))).read_all()


def _parquet(file: Path) -> Any:
    return importlib.import_module("pyarrow.parquet").read_table(file)


def _hub(name: str) -> dict[str, Any]:
    """Return the tables of a dataset on the hub, by split."""
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        found = f"{name} is no path, and the package datasets, which reads the hub, is missing"
        allowed = "pip install 'jdd[hf]', or a saved folder or Parquet files"
        raise BadInput("config.data.path", found, allowed) from None
    try:
        loaded = datasets.load_dataset(name)
    except Exception as error:  # of the network, the hub or the files: many types
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        found = f"{name} is no path, and the hub gives none ({reason})"
        raise BadInput("config.data.path", found, "check the name and the network") from None
    return {str(split): one.data.table for split, one in loaded.items()}


def _columns(
    table: Any, tables: Mapping[str, Any], where: str
) -> tuple[str, str, tuple[str, ...] | None]:
    """Return a table's columns of images and labels, and the classes' names; None for text labels.

    Without names, classes are numbered up to the largest label of all ``tables``.
    """
    types = importlib.import_module("pyarrow").types
    features = _features(table)
    kinds = {name: feature.get("_type") for name, feature in features.items()}
    images = [n for n in table.column_names if kinds.get(n) == "Image"]
    labels = [n for n in table.column_names if kinds.get(n) == "ClassLabel"]
    for field in table.schema:
        if not images and (types.is_binary(field.type) or types.is_large_binary(field.type)):
            images.append(field.name)
        if not images and types.is_struct(field.type) and _holds_bytes(field.type):
            images.append(field.name)
        usable = types.is_integer(field.type) or _is_text(field.type)
        if not labels and usable and field.name in _LABELS:
            labels.append(field.name)
    if not images or not labels:
        raise BadInput(where, f"columns {', '.join(table.column_names)}", _NEEDED)
    label = next((name for name in _LABELS if name in labels), labels[0])
    named = features.get(label, {}).get("names")
    if named:
        return images[0], label, tuple(map(str, named))
    if _is_text(table.schema.field(label).type):
        return images[0], label, None
    most = max((number for t in tables.values() for number in _labels(t, label)), default=-1)
    return images[0], label, tuple(str(i) for i in range(most + 1))


def _is_text(kind: Any) -> bool:
    types = importlib.import_module("pyarrow").types
    return bool(types.is_string(kind) or types.is_large_string(kind))


def _labels(table: Any, label: str) -> set[Any]:
    """Return the different labels of a table; none if it has no such column."""
    if label not in table.column_names:
        return set()
    return {value for value in table.column(label).unique().to_pylist() if value is not None}


def _features(table: Any) -> Mapping[str, Any]:
    """Return the features in the schema's metadata; {} if it has none."""
    text = (table.schema.metadata or {}).get(b"huggingface", b"{}")
    about = json_files.parse(text, "the schema's metadata", "a dataset that datasets wrote")
    info = about.get("info")
    found = info.get("features") if isinstance(info, dict) else None
    held = found.items() if isinstance(found, dict) else ()
    return {name: f for name, f in held if isinstance(f, dict)}


def _holds_bytes(kind: Any) -> bool:
    return kind.get_field_index("bytes") >= 0


def _texts(tables: Mapping[str, Any], label: str, where: str) -> tuple[str, ...]:
    """Return the classes of a column of text: the different texts of all tables, sorted."""
    found = set[str]().union(*(map(str, _labels(table, label)) for table in tables.values()))
    if not found:
        raise BadInput(where, f"no row with a {label}", "a label for every image")
    return tuple(sorted(found))


def _items(column: Any, classes: list[Any], where: str, root: Path) -> Iterator[Item]:
    for i, cell in enumerate(column):
        value = cell.as_py()
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path"):
            folder = root if root.is_dir() else root.parent
            file = regular.inside(folder, str(value["path"]), f"{where}[{i}]")
            try:
                data = regular.read_bytes(file)
            except OSError as error:
                raise BadInput(f"{where}[{i}]", f"{file}: {error.strerror}", "the image") from None
        if data is None or classes[i] is None:
            raise BadInput(f"{where}[{i}]", "no image, or no label", "both in every row")
        yield Item(int(classes[i]), f"{where}[{i}]", bytes(data))
