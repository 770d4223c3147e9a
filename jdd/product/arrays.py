"""Shared by all product files: recipes as JSON, transforms, validated arrays and trees."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jdd import memory
from jdd.data.transform import Transform
from jdd.errors import BadInput
from jdd.storage import npz_files

EXPECTED = "a set saved by jdd (.npz with images, labels, label_kind and recipe) is needed"

Tree = Any


def read_npz(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read every array of an ``.npz`` file, without pickle.

    Raises:
      BadInput: the file is absent, empty, truncated, no npz or larger than memory, or holds pickled
        objects.
    """
    memory.validate_npz_size(path, EXPECTED)
    return npz_files.read(path, EXPECTED)


def recipe_json(recipe: Mapping[str, Any]) -> str:
    """Return the recipe as JSON text; equal recipes give equal text."""
    return json.dumps(recipe, sort_keys=True, default=_plain)


def as_read(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe in the form in which it is read back."""
    found: dict[str, Any] = json.loads(recipe_json(recipe))
    return found


def require(arrays: Mapping[str, np.ndarray], names: Sequence[str], where: str) -> None:
    """Refuse a file that lacks one of ``names``.

    Raises:
      BadInput: naming the missing arrays.
    """
    missing = [name for name in names if name not in arrays]
    if missing:
        raise BadInput(where, f"has no array {', '.join(missing)}", EXPECTED)


def floats(
    array: np.ndarray, name: str, ndim: int | None, where: str, empty: bool = False
) -> np.ndarray:
    """Return ``array`` as float32.

    Args:
      ndim: the number of its axes, None for any.
      empty: whether an axis may have length 0.

    Raises:
      BadInput: naming the array, if it is not of floats, has other axes, or is not finite.
    """
    found = np.asarray(array)
    if found.dtype.kind != "f" or (ndim is not None and found.ndim != ndim):
        axes = "" if ndim is None else f" with {ndim} axes"
        words = f"{name} is {found.dtype}{list(found.shape)}"
        raise BadInput(where, words, f"floats{axes} are needed")
    if not empty and 0 in found.shape:
        raise BadInput(where, f"{name} is {found.dtype}{list(found.shape)}", "no axis of length 0")
    with np.errstate(over="ignore"):  # overflow of float32 gives infinity
        found = found.astype(np.float32)
    if not np.isfinite(found).all():
        raise BadInput(where, f"{name} holds NaN or infinity", "every number must be finite")
    return found


def flat(tree: Tree, path: str = "") -> dict[str, Any]:
    """Return the leaves of a nested dict by their paths, ``a/b``."""
    if not isinstance(tree, Mapping):
        return {path: tree}
    found: dict[str, Any] = {}
    for name, child in tree.items():
        found |= flat(child, f"{path}/{name}" if path else str(name))
    return found


def nested(leaves: Mapping[str, np.ndarray]) -> Tree:
    """Return the nested dict whose leaves have these paths."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        at = tree
        for folder in folders:
            at = at.setdefault(folder, {})
        at[name] = leaf
    return tree


def transform_arrays(transform: Transform) -> dict[str, np.ndarray]:
    """Return a transform as plain arrays."""
    found = {name: np.asarray(getattr(transform, name), np.float32) for name in ("mean", "std")}
    return found | whitening_arrays(transform)


def whitening_arrays(transform: Transform) -> dict[str, np.ndarray]:
    """Return the arrays of a whitening, {} if there is none, or none but its kind; without its
    implied inverse.
    """
    if transform.zca_matrix is None or not transform.fitted:
        return {}
    names = ("zca_mean", "zca_matrix", "zca_image")
    found = {name: getattr(transform, name) for name in names}
    return {name: np.asarray(a, np.float32) for name, a in found.items() if a is not None}


def transform_of(
    arrays: Mapping[str, np.ndarray], recipe: Mapping[str, Any], where: str
) -> Transform:
    """Return the transform of a file; older files have mean and std in the recipe."""
    stated = recipe["normalisation"]
    mean, std = (_floats(arrays, stated, name, where) for name in ("mean", "std"))
    whitening = [
        _floats(arrays, {}, name, where) if name in arrays else None
        for name in ("zca_mean", "zca_matrix", "zca_image")
    ]
    return Transform(mean, std, whitening[0], whitening[1], None, whitening[2])


def validate_transform(transform: Transform, shape: tuple[int, ...], where: str) -> None:
    """Refuse a transform that does not match images of ``shape`` [h, w, c].

    Raises:
      BadInput: naming the mismatched array.
    """
    channels, size = shape[-1], int(np.prod(shape))
    for name in ("mean", "std"):
        found = np.shape(getattr(transform, name))
        if found != (channels,):
            raise BadInput(
                where, f"{name} has shape {list(found)}", f"one number for {channels} channel(s)"
            )
        values = np.asarray(getattr(transform, name))
        if not np.isfinite(values).all() or (name == "std" and values.min() <= 0):
            raise BadInput(where, f"{name} is {values.tolist()}", "finite numbers, std above 0")
    if not transform.fitted:
        return
    if (transform.zca_matrix is None) != (transform.zca_mean is None):
        raise BadInput(where, "half of a whitening", "zca_mean and zca_matrix, or neither")
    for name in ("zca_mean", "zca_matrix", "zca_image"):
        found = getattr(transform, name)
        if found is not None and not np.isfinite(found).all():
            raise BadInput(where, f"{name} holds NaN or infinity", "every number must be finite")
    if transform.zca_matrix is None or transform.zca_mean is None:
        return
    if transform.zca_image is not None and np.shape(transform.zca_image) != (2,):
        shape_found = list(np.shape(transform.zca_image))
        raise BadInput(where, f"zca_image has shape {shape_found}", "a mean and a length")
    mean, matrix = np.shape(transform.zca_mean), np.shape(transform.zca_matrix)
    if mean != (size,) or matrix != (size, size):
        raise BadInput(
            where,
            f"whitening of shapes {list(mean)} and {list(matrix)}",
            f"images of {size} values need [{size}] and [{size}, {size}]",
        )


def _floats(
    arrays: Mapping[str, np.ndarray], entries: Mapping[str, Any], name: str, where: str
) -> np.ndarray:
    try:
        found = np.asarray(arrays.get(name, entries.get(name, [])))
    except ValueError:  # rows of different lengths
        found = np.asarray(None)
    if found.dtype.kind not in "iuf":
        raise BadInput(where, f"{name} is no list of numbers", EXPECTED)
    with np.errstate(over="ignore"):  # overflow of float32 gives infinity, which is refused
        return found.astype(np.float32, copy=False)


def scalar(
    arrays: Mapping[str, np.ndarray], name: str, where: str, default: float | None = None
) -> float:
    value = np.asarray(arrays[name] if name in arrays else default)
    if value.size != 1 or value.dtype.kind not in "iuf":
        raise BadInput(where, f"{name} is not one number", EXPECTED)
    return float(value.reshape(()))


def _plain(value: Any) -> Any:
    """Convert NumPy numbers, tuples and the like to JSON types."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"a recipe holds plain data; {type(value).__name__} is not")
