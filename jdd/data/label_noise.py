"""Training labels in place of a dataset's own: from a file, or corrupted by a transition matrix.

A corrupted label of an image of class i is drawn from row i of T:

    P(noisy = j | clean = i) = T_ij

    symmetric, rate r:   T_ii = 1 - r,  T_ij = r / (C - 1)
    asymmetric, rate r:  T_ii = 1 - r,  T_ij = r for j = pair(i); classes without a pair stay
    matrix:              T of a file, or the empirical one of two label arrays,
                         T_ij = #{first = i, second = j} / #{first = i}

The rows are those of the source's training split, before validation or test images are taken from
it. Test labels are never changed.

Source: facts of CIFAR-N (Wei et al., ICLR 2022); pairs of CIFAR-10: Patrini et al., CVPR 2017.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jdd import rng
from jdd.errors import BadInput
from jdd.schema.common import Data
from jdd.storage import npz_files, regular

CLEAN, ORDER = "clean_label", "image_order_tfds"
# truck > automobile, bird > airplane, cat <> dog, deer > horse.
CIFAR10_PAIRS = {9: 1, 2: 0, 3: 5, 5: 3, 4: 7}


KEYS = ("labels", "noise", "noise_rate", "noise_pairs", "noise_matrix", "noise_seed")


def wanted(data: Data) -> bool:
    """Return whether the keys ask for other training labels than the dataset's own."""
    return bool(data.labels) or data.noise != "none"


def validate(data: Data) -> None:
    """Refuse keys of label noise that contradict each other.

    Raises:
      BadInput: naming the key.
    """
    if data.labels and data.noise != "none":
        found = f"{data.noise} with data.labels={data.labels}"
        raise BadInput("config.data.noise", found, "one of both: labels of a file, or corrupted")
    rated = data.noise in ("symmetric", "asymmetric")
    if rated and not data.noise_rate:
        found = f"0 with data.noise={data.noise}"
        raise BadInput("config.data.noise_rate", found, "a share above 0, such as 0.4")
    if data.noise_rate and not rated:
        found = f"{data.noise_rate:g} with data.noise={data.noise}"
        raise BadInput(
            "config.data.noise_rate", found, "data.noise=symmetric or asymmetric with it"
        )
    if bool(data.noise_matrix) != (data.noise == "matrix"):
        found = f"{data.noise_matrix or 'empty'} with data.noise={data.noise}"
        raise BadInput(
            "config.data.noise_matrix", found, "a file with data.noise=matrix, else none"
        )
    if data.noise_pairs and data.noise != "asymmetric":
        found = f"{data.noise_pairs} with data.noise={data.noise}"
        raise BadInput("config.data.noise_pairs", found, "data.noise=asymmetric with it")


def labels(
    data: Data, clean: np.ndarray, classes: int, names: Sequence[str]
) -> tuple[np.ndarray, str]:
    """Return the training labels that the keys ask for, and a note for the user.

    Args:
      data: the keys of the data.
      clean: the dataset's own labels of the source's training split, int ``[n]``.
      classes: C.
      names: of the classes.

    Returns:
      Labels int32 ``[n]``, and a sentence with the share of labels that differ.

    Raises:
      BadInput: a file that cannot be read or does not fit the dataset, or a matrix or pairs that
        are none.
    """
    if data.labels:
        noisy, how = _given(data.labels, clean, classes)
    else:
        matrix = transition(data, classes)
        noisy = corrupted(clean, matrix, data.noise_seed)
        how = f"{data.noise} noise{_which(data, classes)}, seed {data.noise_seed}"
    share = float(np.mean(noisy != clean))
    if empty := sorted(set(range(classes)) - set(np.unique(noisy).tolist())):
        left = ", ".join(str(names[c]) for c in empty[:5])
        raise BadInput(
            "config.data.labels" if data.labels else "config.data.noise",
            f"labels by which no training image is left of {left}", "every class among them",
        )  # fmt: skip
    return noisy, f"training labels: {how}; {share:.2%} differ from the dataset's own"


def corrupted(clean: np.ndarray, matrix: np.ndarray, seed: int) -> np.ndarray:
    """Return labels drawn from the rows of T, int32 ``[n]``.

    Args:
      clean: int ``[n]``.
      matrix: T, ``[C, C]``, rows sum to 1.
      seed: of the draw; image k has the k-th uniform number whatever the other labels are.
    """
    drawn = rng.host(seed, "data/noise").random(len(clean))
    upper = np.cumsum(matrix, axis=1)
    upper[:, -1] = 1.0  # sums of floats end next to 1
    noisy: np.ndarray = (drawn[:, None] >= upper[clean]).sum(axis=1).astype(np.int32)
    return noisy


def transition(data: Data, classes: int) -> np.ndarray:
    """Return T, float64 ``[C, C]``, of the keys of noise.

    Raises:
      BadInput: pairs that are none, or a file without a matrix of C rows.
    """
    if data.noise == "matrix":
        return _matrix(data.noise_matrix, classes)
    rate, eye = data.noise_rate, np.eye(classes)
    if data.noise == "symmetric":
        return (1 - rate) * eye + rate / max(classes - 1, 1) * (1 - eye)
    found = eye.copy()
    for i, j in _pairs(data, classes).items():
        found[i] = (1 - rate) * eye[i] + rate * eye[j]
    return found


def empirical(first: np.ndarray, second: np.ndarray, classes: int) -> np.ndarray:
    """Return T estimated from two arrays of labels of the same images, float64 ``[C, C]``.

    A class that ``first`` lacks keeps its labels.
    """
    counts = np.zeros((classes, classes))
    np.add.at(counts, (first, second), 1.0)
    sums = counts.sum(axis=1, keepdims=True)
    return np.where(sums > 0, counts / np.maximum(sums, 1), np.eye(classes))


def _pairs(data: Data, classes: int) -> Mapping[int, int]:
    """Return the class that each class is taken for."""
    if not data.noise_pairs:
        if data.name in ("cifar10", "cifar10_jpeg"):
            return CIFAR10_PAIRS
        return {c: (c + 1) % classes for c in range(classes)}
    found = {}
    for words in data.noise_pairs.split(","):
        match = re.fullmatch(r"(\d+):(\d+)", words.strip())
        pair = tuple(map(int, match.groups())) if match else (classes, 0)
        if max(pair) >= classes or pair[0] == pair[1] or pair[0] in found:
            allowed = f"pairs of two classes, 0 to {classes - 1}, such as 9:1,2:0, each first once"
            raise BadInput("config.data.noise_pairs", data.noise_pairs, allowed)
        found[pair[0]] = pair[1]
    return found


def _which(data: Data, classes: int) -> str:
    """Return in words what fixes T: the pairs FROM:TO, or the file."""
    if data.noise == "matrix":
        return f" of {Path(data.noise_matrix).name}"
    pairs = _pairs(data, classes) if data.noise == "asymmetric" else {}
    if len(pairs) == classes and not data.noise_pairs:
        return " to the next class"
    return "".join(f"{' ,'[at > 0]}{i}:{j}" for at, (i, j) in enumerate(sorted(pairs.items())))


def _matrix(where: str, classes: int) -> np.ndarray:
    """Read T: one array ``[C, C]``, or two arrays of labels by which it is estimated."""
    key = "config.data.noise_matrix"
    path, arrays = _split(where)
    chosen = arrays.split(",") if arrays else []
    if len(chosen) == 2:
        first, second = (_whole(_read(key, path, name), key, where, classes) for name in chosen)
        if len(first) != len(second):
            found = f"{where}: {len(first)} and {len(second)} labels"
            raise BadInput(key, found, "two arrays of the same images")
        return empirical(first, second, classes)
    given = _read(key, path, arrays)
    allowed = f"{classes} rows of {classes} numbers, or FILE:CLEAN,NOISY of two label arrays"
    if not _are_numbers(given):
        raise BadInput(key, f"{where}: an array of {given.dtype}", allowed)
    matrix = np.asarray(given, np.float64)
    if matrix.shape != (classes, classes) or not np.isfinite(matrix).all():
        raise BadInput(key, f"{where}: an array {list(matrix.shape)}", allowed)
    if (matrix < 0).any() or not np.allclose(matrix.sum(axis=1), 1, atol=1e-3):
        raise BadInput(
            key, f"{where}: rows that are no probabilities", "rows of sum 1, none below 0"
        )
    scaled: np.ndarray = matrix / matrix.sum(axis=1, keepdims=True)
    return scaled


def _given(where: str, clean: np.ndarray, classes: int) -> tuple[np.ndarray, str]:
    """Read labels of a file, in the order of the dataset."""
    key = "config.data.labels"
    path, name = _split(where)
    noisy = _whole(_read(key, path, name), key, where, classes)
    if len(noisy) != len(clean):
        found = f"{where}: {len(noisy)} labels"
        raise BadInput(key, found, f"one of each of the {len(clean)} training images")
    how = f"{path.name}{':' if name else ''}{name}"
    known = _arrays(key, path, (CLEAN, ORDER)) if path.suffix.lower() == ".npz" else {}
    if CLEAN not in known or np.array_equal(known[CLEAN], clean):
        return noisy, how
    stated, order = known[CLEAN], known.get(ORDER, np.zeros(0))
    allowed = f"labels in the dataset's order, or with {ORDER} that gives it"
    if stated.shape != clean.shape:
        found = f"{where}: its {CLEAN} is an array {list(stated.shape)}"
        raise BadInput(key, found, f"one label of each of the {len(clean)} training images")
    if order.ndim == 1 and order.dtype.kind in "iu" and sorted(order) == list(range(len(clean))):
        if np.array_equal(stated[order], clean):
            return noisy[order], f"{how}, rows in the order of {ORDER}"
    differ = float(np.mean(stated != clean))
    found = f"{where}: its {CLEAN} differs from the dataset's labels in {differ:.1%} of the rows"
    raise BadInput(key, found, allowed)


def _are_numbers(found: np.ndarray) -> bool:
    """Return whether an array has whole numbers or floats, no text, times or complex numbers."""
    return found.dtype.kind in "iuf"


def _split(where: str) -> tuple[Path, str]:
    """Return the file and the name of the array in ``FILE[:ARRAY]``."""
    file, colon, name = where.rpartition(":")
    if not colon or Path(where).expanduser().exists():
        file, name = where, ""
    return Path(file).expanduser(), name


def _whole(found: np.ndarray, key: str, where: str, classes: int) -> np.ndarray:
    """Return labels as int32 ``[n]``."""
    flat = _are_numbers(found) and found.ndim == 1 and len(found)
    if not flat or (found != np.floor(found)).any():
        shown = f"{where}: an array of {found.dtype} {list(found.shape)}"
        raise BadInput(key, shown, "whole numbers, one for each image")
    if found.min() < 0 or found.max() >= classes:
        low, high = found.min(), found.max()
        raise BadInput(key, f"{where}: labels from {low:g} to {high:g}", f"0 to {classes - 1}")
    return found.astype(np.int32)


def _read(key: str, path: Path, name: str) -> np.ndarray:
    """Read an array of an npz, an npy, or of numbers in text with or without a header.

    Raises:
      BadInput: naming ``key``.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise BadInput(key, f"{path} does not exist", "a file .npz, .npy, .csv or .txt")
    if suffix in (".npz", ".npy"):
        found = _arrays(key, path)
        given = name or (next(iter(found)) if len(found) == 1 else "")
        if given not in found:
            shown = name or "no array named"
            raise BadInput(key, f"{path}: {shown}", f"{path}:ARRAY, one of {', '.join(found)}")
        return found[given]
    if suffix in (".csv", ".txt", ".tsv"):
        return _table(key, path, name)
    raise BadInput(key, str(path), "a file .npz, .npy, .csv, .tsv or .txt")


def _arrays(key: str, path: Path, wanted: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Read arrays of an npz, all or those of ``wanted`` that it has; no pickle is loaded.

    The one of an npy has an empty name.
    """
    allowed = "plain arrays, as numpy.savez writes them"
    try:
        if path.suffix.lower() == ".npy":
            return {"": npz_files.read_npy(path, allowed)}
        return npz_files.read(path, allowed, wanted or None)
    except BadInput as error:
        raise BadInput(key, f"{error.where}: {error.found}", error.allowed) from None


def _table(key: str, path: Path, name: str) -> np.ndarray:
    """Read numbers of a text file: one column by its name, or all."""
    try:
        text = regular.read_text(path, "utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(), delimiter=_delimiter(text)) if row]
        head = rows[0] if rows and not _is_number(rows[0][0]) else []
        if name and name not in head:
            raise BadInput(
                key, f"{path}: no column {name!r}", f"one of {', '.join(head) or 'none'}"
            )
        if len(head) > 1 and not name:
            raise BadInput(
                key, f"{path}: no column named", f"{path}:COLUMN, one of {', '.join(head)}"
            )
        body = rows[1:] if head else rows
        if name:
            body = [[row[head.index(name)]] for row in body]
        found = np.asarray([[float(cell) for cell in row] for row in body])
    except (ValueError, IndexError, OSError) as error:
        words = str(error).partition(". The requested")[0]
        raise BadInput(key, f"{path}: {words}", "rows of numbers, all of one length") from None
    return found[:, 0] if found.ndim == 2 and found.shape[1] == 1 else found


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return next((mark for mark in ("\t", ";", ",") if mark in first), ",")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
