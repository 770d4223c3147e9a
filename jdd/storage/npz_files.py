"""Arrays of ``.npz`` files: the only reader of them. No pickle is loaded.

The headers are read first, so nothing is allocated for an array that the file cannot hold. Every
member is opened: its name and place must be those of the directory at the file's end. Numbers have
checksums, which zip compares as they are read.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Collection
from typing import IO, NamedTuple

import numpy as np

from jdd.errors import BadInput
from jdd.storage import regular, zips

# Upper bounds of the compression ratio, by method, where known.
_RATIOS = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: 1032}
_PICKLE = "store plain arrays of numbers and strings"
AGAIN = "write it again"


class Header(NamedTuple):
    """What the header of a stored array says of it, and ``nbytes``, the size of its numbers."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    nbytes: int


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return shape, Fortran order and dtype of a stored array; leaves ``file`` at its numbers.

    Raises:
      ValueError: the header is damaged. NumPy parses it as Python, so any error may be raised.
    """
    try:
        major, _ = np.lib.format.read_magic(file)
        read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[min(major, 2)](file)
    except (MemoryError, OSError, zlib.error):
        raise
    except Exception as error:
        raise ValueError(f"damaged header ({type(error).__name__}: {error})") from error
    if any(length < 0 for length in shape):
        raise ValueError(f"damaged header (shape {shape})")
    return shape, fortran, dtype


def headers(
    path: str | os.PathLike[str], expected: str, wanted: Collection[str] | None = None
) -> dict[str, Header | None]:
    """Return the headers of all arrays of a file by name; no numbers are read.

    Args:
      expected: what kind of file is needed, for errors.
      wanted: the arrays of interest, None for all; the others have None.

    Raises:
      BadInput: no such file, no npz, a damaged one, or pickled objects in place of an array.
    """
    with _opened(path, expected) as archive:
        infos = {_name(info): info for info in archive.infolist()}
        return {n: _header(archive, i, path, _of(n, wanted)) for n, i in infos.items()}


def read(
    path: str | os.PathLike[str], expected: str, wanted: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """Return the arrays of a file by name.

    Args:
      expected: what kind of file is needed, for errors.
      wanted: the arrays to read, of which some may not be there; None for all.

    Raises:
      BadInput: as ``headers``, or damaged numbers.
    """
    headers(path, expected, wanted)
    with _opened(path, expected) as archive:
        infos = {_name(info): info for info in archive.infolist()}
        return {n: _array(archive, i, path) for n, i in infos.items() if _of(n, wanted)}


def _of(name: str, wanted: Collection[str] | None) -> bool:
    return wanted is None or name in wanted


class _opened:
    """A file's archive within a ``with`` block, whose errors are all one line."""

    def __init__(self, path: str | os.PathLike[str], expected: str):
        self._path, self._expected = path, expected

    def __enter__(self) -> zipfile.ZipFile:
        where = os.fspath(self._path)
        try:
            self._file = regular.opened(self._path, "an .npz file")
        except OSError as error:
            found = f"cannot be read ({error.strerror or error})"
            raise BadInput(where, found, self._expected) from error
        try:
            head = self._file.read(2)
            if head != b"PK":
                what = "not an .npz file" if head else "empty file"
                raise BadInput(where, what, self._expected)
            archive = zips.opened(self._file)
            names = [_name(info) for info in archive.infolist()]
            if len(names) != len(set(names)):
                raise BadInput(where, "damaged: an array is there twice", self._expected)
            return archive
        except BaseException as error:
            self._file.close()
            self._translated(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._file.close()
        if error is not None:
            self._translated(error)

    def _translated(self, error: BaseException) -> None:
        """Raise a damaged file's error as one line; zipfile and zlib raise many types for it."""
        if isinstance(error, MemoryError | BadInput) or not isinstance(error, Exception):
            return
        found = f"truncated or damaged ({error or type(error).__name__})"
        raise BadInput(os.fspath(self._path), found, self._expected) from error


def _name(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _header(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str | os.PathLike[str], wanted: bool
) -> Header | None:
    """Return the header of a member; None of one that is not wanted, of which only the place is
    compared with the directory.
    """
    where = f"{os.fspath(path)}:{_name(info)}"
    with archive.open(info) as file:
        if not wanted:
            return None
        regular.validate_expansion(where, info)
        if file.read(6) != b"\x93NUMPY":
            raise BadInput(where, "no array, but other bytes", _PICKLE)
        file.seek(0)
        (shape, fortran, dtype), start = npy_header(file), file.tell()
    if dtype.hasobject:
        raise BadInput(where, "holds pickled Python objects, which could run any code", _PICKLE)
    claimed, held = math.prod(shape) * dtype.itemsize, info.file_size - start
    if info.compress_type in _RATIOS:
        held = min(held, _RATIOS[info.compress_type] * info.compress_size)
    if claimed > held:
        found = f"its header says {list(shape)} {dtype}, {claimed} bytes"
        found += f", and the file can hold {max(0, held)} bytes of it"
        raise BadInput(where, found, f"damaged or not what it says: {AGAIN}")
    return Header(shape, fortran, dtype, claimed)


def _array(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str | os.PathLike[str]
) -> np.ndarray:
    try:
        with archive.open(info) as file:
            found = np.lib.format.read_array(file, allow_pickle=False)
            if file.read(1):  # the checksum is compared at the end
                raise ValueError("bytes after its numbers")
    except MemoryError:
        raise
    except Exception as error:
        where = f"{os.fspath(path)}:{_name(info)}"
        raise BadInput(where, f"damaged file ({error})", AGAIN) from error
    return np.asarray(found)


def read_npy(path: str | os.PathLike[str], expected: str) -> np.ndarray:
    """Return the array of an ``.npy`` file.

    Raises:
      BadInput: no such file, a damaged one, or one that holds pickled objects.
    """
    where = os.fspath(path)
    try:
        with regular.opened(path, "an .npy file") as file:
            shape, _, dtype = npy_header(file)
            held = os.fstat(file.fileno()).st_size - file.tell()
            if dtype.hasobject:
                found = "holds pickled Python objects, which could run any code"
                raise BadInput(where, found, _PICKLE)
            if math.prod(shape) * dtype.itemsize != held:
                raise ValueError(f"{list(shape)} {dtype} in {held} bytes")
            file.seek(0)
            return np.asarray(np.lib.format.read_array(file, allow_pickle=False))
    except OSError as error:
        raise BadInput(where, f"cannot be read ({error.strerror or error})", expected) from error
    except ValueError as error:
        raise BadInput(where, f"truncated or damaged ({error})", expected) from error
