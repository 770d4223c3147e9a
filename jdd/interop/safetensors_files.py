"""A set as a safetensors file: its arrays, with recipe and label kind in the metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from jdd.errors import BadInput
from jdd.product import distilled_set
from jdd.product.distilled_set import DistilledSet
from jdd.storage import regular, tree_digests
from jdd.storage.files import write_atomic
from jdd.storage.tensors import import_package

EXPECTED = "a set exported by jdd is needed"
_WORDS = ("recipe", "label_kind", "schema_version")


def write(dataset: DistilledSet, path: Path) -> Path:
    save = import_package(str(path)).numpy.save
    arrays = distilled_set.to_arrays(dataset)
    # Metadata holds only text, tensors only numbers.
    metadata = {name: str(arrays.pop(name)) for name in _WORDS}
    metadata["digest"] = _digest(arrays, metadata)
    data = save(arrays, {"format": "jdd", **metadata})
    return write_atomic(path, lambda file: file.write(data))


def whole(path: Path) -> bool:
    """Return whether a file has a digest, which fits; False without one.

    Raises:
      BadInput: it cannot be read, or its digest does not fit.
    """
    return "digest" in _content(path)[1]


def read(path: Path) -> DistilledSet:
    arrays, metadata = _content(path)
    for name in ("recipe", "label_kind"):
        if name in metadata:
            arrays[name] = np.asarray(metadata[name])
    version = metadata.get("schema_version", "")
    if version.isdigit():
        arrays["schema_version"] = np.asarray(int(version))
    return distilled_set.from_arrays(arrays, str(path))


def _content(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return tensors and metadata, compared with their digest if there is one."""
    package, where = import_package(str(path)), str(path)
    regular.validate(path, "a .safetensors file")
    try:
        with package.safe_open(path, framework="numpy") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (package.SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        # AttributeError: a dtype that NumPy lacks, such as float8_e4m3fn.
        raise BadInput(where, f"not a whole safetensors file ({error})", EXPECTED) from error
    if "digest" in metadata and metadata["digest"] != _digest(arrays, metadata):
        raise BadInput(where, "damaged: not what was written", "export the set again")
    return arrays, metadata


def _digest(arrays: dict[str, np.ndarray], metadata: dict[str, str]) -> str:
    """Return the hash of tensors and metadata: the format has no checksums."""
    words = {name: np.frombuffer(metadata.get(name, "").encode(), np.uint8) for name in _WORDS}
    return tree_digests.of_arrays({"tensors": arrays, "metadata": words})
