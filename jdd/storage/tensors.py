"""Tensors of a safetensors file, read by name; nothing in the file is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from jdd.errors import BadInput
from jdd.storage import regular

FLOATS = ("F64", "F32", "F16", "BF16")


def listed(path: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return dtype (safetensors' word) and shape of each tensor, without reading its values.

    Raises:
      BadInput: no such file, a damaged one, or safetensors is not installed.
    """
    package = import_package(str(path))
    regular.validate(path, "a .safetensors file")
    try:
        with package.safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            return {n: (s.get_dtype(), tuple(s.get_shape())) for n, s in slices.items()}
    except (package.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def read(path: Path, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Return tensors of floating point as float32.

    Raises:
      BadInput: as ``listed``; a tensor of another dtype than ``FLOATS``, or not there.
    """
    package, there = import_package(str(path)), listed(path)
    names = tuple(names)
    for name in names:
        if name not in there:
            raise BadInput(str(path), f"no tensor {name}", "a file with it")
        if there[name][0] not in FLOATS:
            found = f"{name} is of {there[name][0]}"
            raise BadInput(str(path), found, f"one of {', '.join(FLOATS)}")
    try:
        with package.safe_open(path, framework="numpy") as file:
            return {name: np.asarray(file.get_tensor(name), np.float32) for name in names}
    except (package.SafetensorError, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> BadInput:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        return BadInput(str(path), what, "a .safetensors file")
    return BadInput(str(path), f"not a whole safetensors file ({error})", "copy it again")


def import_package(where: str) -> Any:
    """Return the package safetensors with its NumPy part.

    Raises:
      BadInput: it is not installed.
    """
    try:
        import ml_dtypes  # noqa: F401  bfloat16 in NumPy
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise BadInput(
            where, "a .safetensors file needs its package", "pip install safetensors"
        ) from error
    return safetensors


def digest(path: Path) -> str:
    """Return a 16-hex-digit hash of a file's content."""
    with regular.opened(path.expanduser()) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
