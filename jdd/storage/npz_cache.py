"""Cache of arrays computed from a trained net, stored in the folder of its weights.

<store>/<name>.npz    the arrays, and "settings", JSON: the inputs they were computed from
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jdd.errors import BadInput
from jdd.storage import npz_files
from jdd.storage.files import write_atomic


def write(path: Path, settings: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write the arrays and their settings atomically."""
    every: dict[str, Any] = {**arrays, "settings": np.asarray(_text(settings))}
    write_atomic(path, lambda file: np.savez(file, **every))


def read(path: Path, settings: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """Return the arrays; None if they are missing, truncated or made with other settings."""
    try:
        arrays = npz_files.read(path, "")
    except BadInput:  # made again
        return None
    return arrays if str(arrays.pop("settings", "")) == _text(settings) else None


def _text(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, sort_keys=True)
