"""Sets prepared by tensorflow-datasets, read without TensorFlow."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jdd.data.sources import pixels
from jdd.data.sources.decoding import Item, decode_all
from jdd.data.sources.image_buffer import ImageBuffer, Splits
from jdd.data.sources.request import Raw, Request
from jdd.errors import BadInput
from jdd.storage import regular

_INFO = "dataset_info.json"
_READABLE = ("array_record", "parquet")  # formats with random access, no TensorFlow needed
_SPLITS = {"train": "train", "validation": "val", "val": "val", "test": "test"}


def find(request: Request) -> Path:
    """Return the folder of a prepared set (it holds dataset_info.json).

    A set that is not prepared is prepared if TensorFlow is installed. ``request.path`` is the
    folder itself, or the data_dir above it ("": $TFDS_DATA_DIR, else ~/tensorflow_datasets).

    Raises:
      BadInput: it is not prepared and cannot be.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise BadInput(
            "config.data.source", "tensorflow-datasets is not installed", "pip install 'jdd[tfds]'"
        )
    root, name = _root(request.path), request.facts.tfds if request.facts else request.name
    if root.is_file():
        raise BadInput(
            "config.data.path", f"{root} is a file", "for a file: --config.data.source=folder"
        )
    if not name:
        raise BadInput(
            "config.data.source",
            f"tfds has no set for {request.name}",
            "use --config.data.source=folder with --config.data.path",
        )
    prepared = _newest(root, name)
    if prepared is None:
        _prepare(root, name)
        prepared = _newest(root, name)
    if prepared is None:
        raise BadInput("config.data.path", f"no prepared set {name} in {root}", "prepare it first")
    return prepared


def _root(path: str) -> Path:
    top = path or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(top).expanduser()


def there(name: str) -> bool:
    """True if a set of that name is prepared in the folder of tensorflow-datasets."""
    return _newest(_root(""), name) is not None


def _newest(root: Path, name: str) -> Path | None:
    if (root / _INFO).is_file():
        return root
    for top in (root / name, root):
        found = [info.parent for info in top.glob(f"*/{_INFO}")]
        if found:
            return max(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])
    return None


def _prepare(root: Path, name: str) -> None:
    if importlib.util.find_spec("tensorflow") is None:
        raise BadInput(
            "config.data.source",
            f"tfds set {name} is not prepared in {root} and preparing it needs TensorFlow",
            "pip install 'jdd[tfds]', or give images: --config.data.source=folder "
            "--config.data.path=...",
        )
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=str(root), file_format="array_record")
        builder.download_and_prepare()
    except (OSError, ValueError, RuntimeError, tfds.core.download.DownloadError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise BadInput(
            "config.data.source",
            f"tfds could not prepare {name} ({reason})",
            "check the name and the network, or use --config.data.source=folder",
        ) from None


def read(request: Request, prepared: Path, buffer: ImageBuffer) -> Raw:
    """Read the images and labels of a prepared set.

    Raises:
      BadInput: another file format than array_record or parquet, or no image and label features.
    """
    _validate_info(request, prepared)
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(str(prepared))
    image, label = _features(builder, tfds, prepared)
    feature = builder.info.features[label]
    names = tuple(str(name) for name in feature.names or range(feature.num_classes))
    splits: Splits = {}
    notes = []
    for theirs, ours in _SPLITS.items():
        if theirs not in builder.info.splits or ours in splits:
            continue
        # Encoded bytes go through the same decoding and checks as files in folders.
        skip = {image: tfds.decode.SkipDecoding()}
        rows = builder.as_data_source(split=theirs, decoders=skip)
        where = f"{prepared}:{theirs}"
        decoded = decode_all(_items(rows, image, label, where), request)
        found = [(buffer.add(one), cls) for cls, one in decoded]
        if not found:
            continue
        images, seen = buffer.take([place for place, _ in found])
        labels = np.array([cls for _, cls in found])
        splits[ours] = (images, pixels.validate_labels(labels, len(images), len(names), where))
        notes += [f"{ours}: {note}" for note in seen]
    if "train" not in splits:
        raise BadInput(str(prepared), "no train split", "a prepared set needs a split train")
    pixels.validate_classes(splits["train"][1], names, str(prepared))
    return Raw(splits, names, 255.0, tuple(notes))


def _validate_info(request: Request, prepared: Path) -> None:
    file = prepared / _INFO
    try:
        info = json.loads(regular.read_text(file))
        kind, name = info.get("fileFormat", "tfrecord"), info.get("name", "")
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise BadInput(str(file), f"cannot be read ({error})", "prepare it again") from None
    if request.facts and name != request.facts.tfds:
        raise BadInput(
            str(prepared),
            f"holds {name!r}",
            f"{request.name} is the tfds set {request.facts.tfds!r}; or give a name of your own",
        )
    if kind not in _READABLE:
        raise BadInput(
            str(prepared),
            f"prepared as {kind}",
            "prepare it with file_format='array_record' (or 'parquet')",
        )


def _features(builder: Any, tfds: Any, prepared: Path) -> tuple[str, str]:
    features = dict(builder.info.features.items())
    images = [n for n, f in features.items() if isinstance(f, tfds.features.Image)]
    labels = [n for n, f in features.items() if isinstance(f, tfds.features.ClassLabel)]
    keys = builder.info.supervised_keys or ()
    pair = (
        next((n for n in (*keys, "image") if n in images), images[0] if images else ""),
        next((n for n in (*keys, "label") if n in labels), labels[0] if labels else ""),
    )
    if not all(pair):
        raise BadInput(
            str(prepared), f"features {', '.join(features)}", "needed are an Image and a ClassLabel"
        )
    return pair


def _items(rows: Any, image: str, label: str, where: str) -> Iterator[Item]:
    for i in range(len(rows)):
        row = rows[i]
        yield Item(int(row[label]), f"{where}[{i}]", bytes(row[image]))
