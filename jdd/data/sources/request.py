"""Input (``Request``) and output (``Raw``) of a source."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd.data import catalogue as table
from jdd.data.catalogue import Facts
from jdd.data.sources.layout import LAYOUTS
from jdd.errors import BadInput, nearest
from jdd.schema.common import FALLBACK, Data
from jdd.schema.values import section

SOURCES = ("digits", "npz", "folder", "tfds", "hf")
# The keys' defaults, with 'auto' resolved; a request without a name means the digits.
DEFAULTS: dict[str, Any] = section(Data()) | {"name": "digits", "zca": FALLBACK["data.zca"]}


class Raw(NamedTuple):
    """Images as their source has them, before splitting and normalising.

    ``splits`` maps "train", and "val" and "test" where the source has them, to (images
    [n, h, w, c], labels int32 [n]); images are uint8 in [0, scale], or float32 with scale 1; with
    ``config.data.stream`` a ``Streamed`` of uint8.
    """

    splits: dict[str, tuple[Any, np.ndarray]]
    class_names: tuple[str, ...]
    scale: float
    notes: tuple[str, ...] = ()


class Request(NamedTuple):
    """One dataset, checked as far as possible without opening it."""

    name: str
    facts: Facts | None
    source: str
    path: str
    size: int
    cache_dir: str
    stream: bool = False
    layout: str = "structure"

    @property
    def file(self) -> Path:
        """The path with ~ expanded."""
        return Path(self.path).expanduser()

    @property
    def channels(self) -> int | None:
        """The number of channels a known dataset must have; None: any."""
        return self.facts.shape[2] if self.facts else None


def setting(config: Data | Mapping[str, Any], key: str) -> Any:
    """Return a key of the data config or its default."""
    value = getattr(config, key) if isinstance(config, Data) else config.get(key)
    return DEFAULTS[key] if value is None else value


def source_of(name: str, source: str, path: str) -> str:
    """Return the source that "auto" selects: by the path's suffix, else the known dataset's own."""
    if source not in ("", "auto"):
        return source
    facts = table.lookup(name)
    if path:
        file = Path(path).expanduser()
        if is_hugging_face(file):
            return "hf"
        if _is_prepared(file) or (facts and facts.tfds and _is_prepared(file / facts.tfds)):
            return "tfds"
        return "npz" if file.suffix.lower() == ".npz" else "folder"
    return facts.source if facts else "folder"


def is_hugging_face(path: Path) -> bool:
    """True for a folder that ``save_to_disk`` wrote, a Parquet file, or a folder of these alone."""
    if (path / "dataset_dict.json").is_file() or path.suffix.lower() == ".parquet":
        return True
    if (path / "state.json").is_file() and any(path.glob("data-*.arrow")):
        return True
    if not path.is_dir() or _is_prepared(path):
        return False
    flat = not any(p.is_dir() and not p.name.startswith(".") for p in path.iterdir())
    return any(path.glob("data/*.parquet")) or flat and any(path.glob("*.parquet"))


def _is_prepared(path: Path) -> bool:
    """True if tensorflow-datasets has prepared a set in this folder or in version folders below."""
    return any(any(path.glob(pattern)) for pattern in ("dataset_info.json", "*/dataset_info.json"))


def request_of(config: Data | Mapping[str, Any]) -> Request:
    """Check name, source, path and size of a data config.

    Args:
      config: ``config.data``, or a mapping; missing keys take ``DEFAULTS``.

    Returns:
      The Request; nothing has been read yet.

    Raises:
      BadInput: an unknown dataset without a path, an unknown source, a source that does not hold
        the dataset, a missing path or an invalid size.
    """
    name, path = str(setting(config, "name")), str(setting(config, "path"))
    facts, given = table.lookup(name), str(setting(config, "source"))
    source = source_of(name, given, path)
    if source not in SOURCES:
        hint = nearest(source, SOURCES)
        meant = f"did you mean {hint}? " if hint else ""
        raise BadInput(
            "config.data.source", repr(source), f"{meant}allowed are auto, {', '.join(SOURCES)}"
        )
    if facts is None:
        _validate_own(name, given, path)
    if source == "digits" and name != "digits":
        raise BadInput(
            "config.data.source", f"'digits' for the dataset {name!r}", "it holds only digits"
        )
    if source in ("npz", "folder"):
        _validate_path(name, source, path)
    stream = bool(setting(config, "stream"))
    if stream and source == "digits":
        raise BadInput("config.data.stream", "true, and the digits come with scikit-learn", "false")
    if source == "hf" and stream and not Path(path or name).expanduser().exists():
        found = "true, and the images come from the hub"
        raise BadInput("config.data.stream", found, "false, or a folder of save_to_disk")
    cache_dir = str(setting(config, "cache_dir"))
    form = str(setting(config, "layout"))
    if form not in LAYOUTS:
        raise BadInput("config.data.layout", repr(form), f"one of {', '.join(LAYOUTS)}")
    if form != "structure" and source != "folder":
        raise BadInput("config.data.layout", f"{form} with source={source}", "it is of folders")
    return Request(name, facts, source, path, side(config), cache_dir, stream, form)


def _validate_own(name: str, source: str, path: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise BadInput(
            "config.data.name",
            repr(name),
            "a name starts with a letter or digit and holds letters, digits, _ . - only",
        )
    if not path and source not in ("tfds", "hf"):
        hint = nearest(name, table.CATALOGUE)
        meant = f"; did you mean {hint}?" if hint else ""
        raise table.known("config.data.name", f"unknown dataset {name!r}{meant}")


def _validate_path(name: str, source: str, path: str) -> None:
    kind = "an .npz file" if source == "npz" else "a folder, .zip or .tar.xz of class folders"
    if not path:
        raise BadInput(
            "config.data.path",
            "empty",
            f"the dataset {name} with source={source} needs {kind}: --config.data.path=...",
        )
    if not Path(path).expanduser().exists():
        raise BadInput("config.data.path", f"{path} does not exist", f"give {kind}")


def side(config: Data | Mapping[str, Any]) -> int:
    size = setting(config, "size")
    if isinstance(size, bool) or not isinstance(size, int | np.integer) or not 0 <= size <= 1024:
        raise BadInput(
            "config.data.size", repr(size), "allowed are 0 (as found) or a side of 1 to 1024 pixels"
        )
    return int(size)
