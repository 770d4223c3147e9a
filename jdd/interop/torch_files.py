"""PyTorch files: releases of MTT, DC and related methods, and jdd's ``.pt`` export."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jdd.errors import BadInput
from jdd.product.distilled_set import DistilledSet, from_arrays, to_arrays
from jdd.storage import regular, zips
from jdd.storage.files import write_atomic

EXPECTED = "a tensor [n, c, h, w], {'data': [[images, labels], ...]} or jdd's own export"
RATE = "one number: torch.save(torch.tensor(0.01), 'lr.pt')"
SWAPPED = "the tensor is [n, h, w, c]: its last axis was taken as the channels"


class Tensors(NamedTuple):
    """Images [n, h, w, c], labels, rate; ``pixels``: the name of the file indicates pixels.

    Images are float32, or integers of the file's own type; ``notes`` state what was guessed.
    """

    images: np.ndarray
    labels: np.ndarray | None
    lr: float | None
    pixels: bool
    align_corners: bool
    notes: tuple[str, ...] = ()


def read(path: Path, item: int | None = None) -> DistilledSet | Tensors:
    """Read a ``.pt`` file with PyTorch's restricted reader: tensors and plain data, no objects.

    Args:
      path: jdd's export, a tensor of images as MTT saves it (labels and learning rate are read
        from files next to it: ``images_best.pt``, ``labels_best.pt``, ``lr.pt``), a pair
        [images, labels], or the ``res_*.pt`` of DC, DSA and DM.
      item: index of the run in a ``res_*.pt``; None: the first.

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
    return _with_siblings(*_images(content, where), path)


def find(folder: Path) -> Path | None:
    """Return the file of images in an MTT-like release folder, or None for other folders."""
    for name in ("images_best.pt", "images.pt"):
        if (folder / name).is_file():
            return folder / name
    return None


def siblings(path: Path) -> tuple[str, ...]:
    """Return files next to a ``.pt`` file whose names differ only by a number or ``part``."""

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
            arrays[str(name)] = _plain(value, where)
    images = arrays.get("images", np.zeros(0))
    if images.ndim != 4:
        raise BadInput(where, f"images of shape {list(images.shape)}", EXPECTED)
    arrays["images"] = images = images.transpose(0, 2, 3, 1)
    size = int(np.prod(images.shape[1:]))
    if "zca_matrix" in arrays:
        matrix, mean = arrays["zca_matrix"], arrays.get("zca_mean", np.zeros(0))
        if matrix.shape != (size, size) or mean.shape != (size,):
            found = f"whitening of shapes {list(mean.shape)} and {list(matrix.shape)}"
            raise BadInput(where, found, f"[{size}] and [{size}, {size}]")
        back = np.argsort(_channels_first(images.shape[1:]))
        arrays["zca_matrix"], arrays["zca_mean"] = matrix[np.ix_(back, back)], mean[back]
    return from_arrays(arrays, where)


def _channels_first(shape: tuple[int, ...]) -> np.ndarray:
    """Return the indices into flattened [h, w, c], in the order of flattened [c, h, w]."""
    return np.arange(int(np.prod(shape))).reshape(shape).transpose(2, 0, 1).ravel()


def _plain(value: Any, where: str) -> np.ndarray:
    """Convert a tensor, a number or a text of an export to an array."""
    return np.asarray(value) if isinstance(value, Real | str) else _array(value, where)


def _with_siblings(images: np.ndarray, notes: tuple[str, ...], path: Path) -> Tensors:
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
    return Tensors(images, _labels(labels), lr, pixels, True, notes)


def _pair(pair: Any, where: str) -> Tensors:
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise BadInput(where, "no pair of images and labels", EXPECTED)
    labels = None if pair[1] is None else _labels(_array(pair[1], where))
    images, notes = _images(pair[0], where)
    return Tensors(images, labels, None, False, True, notes)


def _images(value: Any, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return images [n, h, w, c], and a note if the tensor already has this order."""
    images = _array(value, where)
    if images.ndim != 4:
        raise BadInput(where, f"a tensor of shape {list(images.shape)}", EXPECTED)
    if images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return images, (SWAPPED,)
    return np.ascontiguousarray(images.transpose(0, 2, 3, 1)), ()


def _labels(labels: np.ndarray | None) -> np.ndarray | None:
    """Convert labels to the two forms of a set: class indices [n], or soft labels [n, classes].

    Integers saved as floats become integers, a column [n, 1] becomes [n], and one-hot rows of
    integers become floats.
    """
    if labels is None:
        return None
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 1 and labels.dtype.kind == "f":
        # Beyond 2^31 (or NaN) it is no class: left a float, which is refused later.
        whole = (np.abs(labels) < 2**31).all() and np.array_equal(labels, np.floor(labels))
        return labels.astype(np.int64) if whole else labels
    if labels.ndim == 2 and labels.dtype.kind in "iu":
        one_hot = np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
        return labels.astype(np.float32) if one_hot else labels
    return labels


def _array(value: Any, where: str, floats: str = "float32") -> np.ndarray:
    """Convert a tensor to an array: floats of any width to ``floats``, integers unchanged.

    Raises:
      BadInput: not a tensor, or not a dense one of real numbers.
    """
    torch = package(where)
    if not isinstance(value, torch.Tensor):
        raise BadInput(where, f"a {type(value).__name__} where a tensor was expected", EXPECTED)
    value = value.detach()
    for kind, (found, remedy) in {
        "nested": (value.is_nested, "save one tensor: torch.stack(tensor.unbind())"),
        "meta": (value.is_meta, "its values are not in the file: save it with them"),
        "sparse": (value.layout != torch.strided, "save tensor.to_dense()"),
        "quantised": (value.is_quantized, "save tensor.dequantize()"),
        "complex": (value.is_complex(), "save real numbers: tensor.real"),
        "bool": (
            value.dtype == torch.bool,
            "save numbers: tensor.float(), of labels tensor.long()",
        ),
    }.items():
        if found:
            raise BadInput(where, f"a {kind} tensor", remedy)
    try:
        value = value.to(getattr(torch, floats)) if value.is_floating_point() else value
        return np.asarray(value.resolve_neg().numpy())
    except (RuntimeError, TypeError) as error:  # types of fewer than 8 bits have no arithmetic
        raise BadInput(where, f"a tensor of {value.dtype}", "save tensor.float()") from error


def _number(value: Any, where: str) -> float:
    """Return a learning rate: a tensor of one number, a number, or a list of one."""
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if hasattr(value, "detach"):
        # In double precision: the rate as it was saved, not the nearest float32.
        value = _array(value, where, "float64").ravel().tolist()
        value = value[0] if len(value) == 1 else value
    if isinstance(value, list | tuple):
        raise BadInput(where, f"{len(value)} learning rates", RATE)
    if isinstance(value, bool) or not isinstance(value, Real):
        raise BadInput(where, f"a {type(value).__name__} for a learning rate", RATE)
    try:
        return float(value)
    except OverflowError as error:  # an integer of hundreds of digits
        raise BadInput(where, "a learning rate that no float holds", RATE) from error


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
    torch, where = package(str(path)), str(path)
    regular.validate(path, "a .pt file")
    try:
        damaged = _damaged(path)
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch, for example on sparse tensors
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:
        # The unpickler executes the bytes: a damaged file may raise any exception, from TypeError
        # (a dict as a key) to AssertionError.
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise BadInput(
                where,
                "holds Python objects, which could run any code: weights_only refuses them",
                "save its tensors alone, e.g. torch.save(torch.as_tensor(images), "
                "'images_best.pt')",
            ) from error
        raise BadInput(where, "not a whole PyTorch file", EXPECTED) from error
    if damaged:
        raise BadInput(
            where,
            f"the bytes of {damaged!r} do not have the checksum that was saved with them",
            "copy the file again; or, if it was saved without, torch.save(torch.load(path), path)",
        )
    return content


def _damaged(path: Path) -> str | None:
    """Return the first part of the file with a wrong checksum: torch.load does not check them."""
    if not zipfile.is_zipfile(path):
        return None  # the format of PyTorch before 1.6 has no checksums
    with zips.opened(path) as archive:
        return archive.testzip()


def _numpy_scalars() -> list[Any]:
    """Return the NumPy scalar types that the reader may load: DC's accuracy lists consist of them.

    They hold no code. Both NumPy 1's and NumPy 2's names are included.
    """
    scalar = type(np.float64(0)).__reduce__(np.float64(0))[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
    kinds = [type(np.dtype(kind)) for kind in ("float32", "float64", "int32", "int64")]
    return [*((scalar, name) for name in names), np.dtype, *kinds]
