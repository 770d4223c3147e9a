"""PyTorch's files: the releases of MTT, DC and their relatives, and our own ``.pt`` export."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd.distilled import DistilledSet, from_arrays, to_arrays
from jdd.errors import BadInput
from jdd.files import write_atomic

EXPECTED = "a tensor [n, c, h, w], {'data': [[images, labels], ...]} or jdd's own export"


class Tensors(NamedTuple):
    """Images float32 [n, h, w, c] and what lies beside them; ``pixels``: in [0, 1]."""

    images: np.ndarray
    labels: np.ndarray | None
    lr: float | None
    pixels: bool
    align_corners: bool


def read(path: Path, item: int | None = None) -> DistilledSet | Tensors:
    """Read a ``.pt`` file by PyTorch's restricted reader: tensors and plain data, no objects.

    Args:
      path: jdd's export, a tensor of images as MTT saves it (labels and learning rate are found
        beside it: ``images_best.pt``, ``labels_best.pt``, ``lr.pt``), a pair [images, labels],
        or the ``res_*.pt`` of DC, DSA and DM.
      item: which run of a ``res_*.pt``; the first when None.

    Raises:
      BadInput: PyTorch is missing, or the file is damaged or holds anything else.
    """
    content, where = _load(path), str(path)
    if isinstance(content, Mapping) and "recipe" in content:
        return _from_export(content, where)
    if item is not None and not (isinstance(content, Mapping) and "data" in content):
        raise BadInput(where, "holds one set", f"leave out item={item}")
    if isinstance(content, Mapping) and "data" in content:
        runs = content["data"]
        if not isinstance(runs, list | tuple) or not runs:
            raise BadInput(where, "'data' is not a list of runs", EXPECTED)
        if not 0 <= (item or 0) < len(runs):
            raise BadInput(where, f"item {item}", f"it holds items 0 to {len(runs) - 1}")
        # DC, DSA and DM leave torch's default, align_corners=False.
        return _pair(runs[item or 0], where)._replace(align_corners=False)
    if isinstance(content, Mapping) and "images" in content:
        pair = [content["images"], content.get("labels")]
        lr = content.get("lr")
        return _pair(pair, where)._replace(lr=None if lr is None else _number(lr, where))
    if isinstance(content, list | tuple):
        return _pair(content, where)
    return _beside(_images(content, where), path)


def find(folder: Path) -> Path | None:
    """Return the images of an MTT-like release folder, or None where it is not one."""
    for name in ("images_best.pt", "images.pt"):
        if (folder / name).is_file():
            return folder / name
    return None


def siblings(path: Path) -> tuple[str, ...]:
    """Return files next to a ``.pt`` file that are named as it is but for a number or ``part``."""

    def stem(name: str) -> str:
        return re.sub(r"\d+", "#", name)

    found = (other.name for other in path.parent.glob(f"*{path.suffix}") if other.name != path.name)
    return tuple(sorted(name for name in found if stem(name) == stem(path.name)))


def write(dataset: DistilledSet, path: Path) -> Path:
    """Save tensors and plain data, images as [n, c, h, w] and whitening in that order too."""
    torch = package(str(path))
    arrays = to_arrays(dataset)
    order = _channels_first(dataset.images.shape[1:])
    out: dict[str, Any] = {
        "schema_version": int(arrays["schema_version"]),
        "images": torch.from_numpy(arrays["images"].transpose(0, 3, 1, 2).copy()),
        "labels": torch.from_numpy(arrays["labels"].copy()),
        "label_kind": dataset.label_kind,
        "lr": dataset.lr,
        "recipe": str(arrays["recipe"]),
        "mean": torch.from_numpy(arrays["mean"].copy()),
        "std": torch.from_numpy(arrays["std"].copy()),
    }
    if dataset.label_kind == "hard":
        out["labels"] = out["labels"].long()  # what torch's cross entropy takes
    if "zca_matrix" in arrays:
        out["zca_mean"] = torch.from_numpy(arrays["zca_mean"][order])
        out["zca_matrix"] = torch.from_numpy(arrays["zca_matrix"][np.ix_(order, order)])
    if "zca_image" in arrays:
        out["zca_image"] = torch.from_numpy(arrays["zca_image"].copy())
    return write_atomic(path, lambda file: torch.save(out, file))


def _from_export(content: Mapping[str, Any], where: str) -> DistilledSet:
    arrays = {}
    for name, value in content.items():
        if value is not None:
            arrays[str(name)] = value.numpy() if hasattr(value, "numpy") else np.asarray(value)
    images = arrays.get("images", np.zeros(0))
    if images.ndim != 4:
        raise BadInput(where, f"images of shape {list(images.shape)}", EXPECTED)
    arrays["images"] = images = images.transpose(0, 2, 3, 1)
    size = int(np.prod(images.shape[1:]))
    if "zca_matrix" in arrays:
        matrix, mean = arrays["zca_matrix"], arrays.get("zca_mean", np.zeros(0))
        if matrix.shape != (size, size) or mean.shape != (size,):
            raise BadInput(where, f"whitening of shape {list(matrix.shape)}", f"[{size}, {size}]")
        back = np.argsort(_channels_first(images.shape[1:]))
        arrays["zca_matrix"], arrays["zca_mean"] = matrix[np.ix_(back, back)], mean[back]
    return from_arrays(arrays, where)


def _channels_first(shape: tuple[int, ...]) -> np.ndarray:
    """Return the places of [h, w, c] flattened, in the order of [c, h, w] flattened."""
    return np.arange(int(np.prod(shape))).reshape(shape).transpose(2, 0, 1).ravel()


def _beside(images: np.ndarray, path: Path) -> Tensors:
    """Complete ``images_TAG.pt`` with ``labels_TAG.pt`` and ``lr_TAG.pt``, or without the tag."""
    # MTT's images_zca_TAG.pt are the pictures: whitening already undone.
    pixels = path.stem.startswith("images_zca")
    tag = path.stem.removeprefix("images").removeprefix("_zca")
    labels, lr = None, None
    for name in dict.fromkeys((f"labels{tag}.pt", "labels.pt")):
        if labels is None and (path.parent / name).is_file():
            labels = _array(_load(path.parent / name), str(path.parent / name))
    for name in dict.fromkeys((f"lr{tag}.pt", "lr.pt")):
        if lr is None and (path.parent / name).is_file():
            lr = _number(_load(path.parent / name), str(path.parent / name))
    return Tensors(images, _whole(labels), lr, pixels, True)


def _pair(pair: Any, where: str) -> Tensors:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise BadInput(where, "no pair of images and labels", EXPECTED)
    labels = None if pair[1] is None else _whole(_array(pair[1], where))
    return Tensors(_images(pair[0], where), labels, None, False, True)


def _images(value: Any, where: str) -> np.ndarray:
    images = _array(value, where)
    if images.ndim != 4:
        raise BadInput(where, f"a tensor of shape {list(images.shape)}", EXPECTED)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1), np.float32)


def _whole(labels: np.ndarray | None) -> np.ndarray | None:
    """Hard labels saved as floats become the whole numbers they are."""
    if labels is None or labels.ndim != 1 or labels.dtype.kind != "f":
        return labels
    return labels.astype(np.int64) if np.array_equal(labels, np.floor(labels)) else labels


def _array(value: Any, where: str) -> np.ndarray:
    if not hasattr(value, "detach"):
        raise BadInput(where, f"a {type(value).__name__} where a tensor was expected", EXPECTED)
    value = value.detach()
    return (value.float() if value.is_floating_point() else value).numpy()


def _number(value: Any, where: str) -> float:
    array = np.asarray(value.detach() if hasattr(value, "detach") else value)
    if array.size != 1 or array.dtype.kind not in "iuf":
        raise BadInput(where, f"a learning rate of shape {list(array.shape)}", "one number")
    return float(array.reshape(()))


def package(where: str) -> Any:
    """Return PyTorch.

    Raises:
      BadInput: it is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise BadInput(where, "a .pt file needs PyTorch", "pip install torch") from error
    return torch


def _load(path: Path) -> Any:
    torch = package(str(path))
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise BadInput(
                str(path),
                "holds Python objects, which could run any code: weights_only refuses them",
                "save its tensors alone, e.g. torch.save(images, 'images_best.pt')",
            ) from error
        raise BadInput(str(path), "not a whole PyTorch file", EXPECTED) from error
    except (RuntimeError, EOFError, KeyError, ValueError, IndexError, OSError) as error:
        raise BadInput(str(path), "not a whole PyTorch file", EXPECTED) from error


def _numpy_scalars() -> list[Any]:
    """Allow NumPy numbers, which DC's accuracy lists are made of: they hold no code.

    Under the names of both NumPy 1 and NumPy 2.
    """
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]
