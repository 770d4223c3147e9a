"""A Stable Diffusion pipeline as a part of a run's identity: its content, not its place.

A folder counts by name, size and SHA-256 of ``model_index.json`` and of every file that is loaded:
settings, vocabulary and weights of its parts. Of weights in several formats those in safetensors
are loaded; the others do not count. The time is that of reading the weights once; hashes of large
files are stored in the cache folder (``storage/digests.py``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jdd.data import cache
from jdd.errors import BadInput
from jdd.generative.stable_diffusion import PARTS, WHERE
from jdd.storage import digests

STORED = "hashes.json"  # in the cache folder
_WEIGHTS = (".safetensors", ".bin")
# Weights of other libraries, and descriptions, which are not loaded.
_OTHERS = (".ckpt", ".h5", ".md", ".msgpack", ".onnx", ".onnx_data", ".pb", ".pt", ".pth", ".xml")


def digest(config: Any) -> str:
    """Return the digest of the folder ``config.sd.weights``; a name on the hub is its own.

    Raises:
      BadInput: a file of the folder cannot be read.
    """
    name: str = config.sd.weights
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return name
    known = cache.folder(config.data.cache_dir) / STORED
    try:
        found = [
            [path.relative_to(folder).as_posix(), path.stat().st_size, digests.of_file(path, known)]
            for path in sorted(loaded(folder))
        ]
    except OSError as error:
        words = f"{error.filename} cannot be read ({error.strerror})"
        raise BadInput(f"{WHERE}={name}", words, "a folder whose files may be read") from error
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]


def loaded(folder: Path) -> Iterator[Path]:
    """Yield the files of a pipeline's folder that are loaded."""
    index = folder / "model_index.json"
    if index.is_file():
        yield index
    for part in PARTS:
        files = [path for path in (folder / part).rglob("*") if path.is_file()]
        weights = [path for path in files if path.suffix in _WEIGHTS and not _variant(path)]
        safe = [path for path in weights if path.suffix == ".safetensors"]
        yield from safe or weights
        yield from (path for path in files if path.suffix not in (*_WEIGHTS, *_OTHERS))


def _variant(path: Path) -> bool:
    """Return whether weights are of a variant that has to be asked for: NAME.fp16.safetensors."""
    return any(word in path.name.split(".")[1:-1] for word in ("fp16", "bf16", "non_ema", "ema"))
