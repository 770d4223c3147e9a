"""Walk a folder, a zip or a tar as a stream of named entries; nothing is ever extracted."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from jdd.errors import BadInput
from jdd.storage import files, regular, zips

Parts = tuple[str, ...]
_OPENERS: tuple[tuple[bytes, Callable[..., Any]], ...] = (
    (b"\xfd7zXZ\x00", lzma.open),
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
)
_DAMAGE = (
    # IndexError: raised by zipfile for an entry with an empty name.
    *(OSError, EOFError, RuntimeError, NotImplementedError, ValueError, IndexError),
    *(zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error),
)


# Formats given instead of a supported archive: first bytes, name, remedy.
_NPZ = "save images and labels as .npz: numpy.savez(path, images=..., labels=...)"
_UNPACK = "unpack it and give the folder, or pack it as .zip or .tar.xz"
_FORMATS = (
    (b"PAR1", "a Parquet file", "it unpacked, with the ending .parquet"),
    (b"\x93NUMPY", "a NumPy .npy file: one array, images without labels or the reverse", _NPZ),
    (b"MATLAB 5.0", "a MATLAB .mat file", f"read it with scipy.io.loadmat and {_NPZ}"),
    (b"\x89HDF", "an HDF5 file (.h5, or MATLAB 7.3)", f"read it with h5py and {_NPZ}"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "a Zstandard file", _UNPACK),
    (b"\x00\x00\x08", "an IDX file (MNIST's format)", f"read images and labels and {_NPZ}"),
    (b"SQLite format 3", "an SQLite database", f"export it and {_NPZ}"),
    (b"ARROW1", "an Arrow file", f"{_NPZ}, or write a folder of class folders"),
    (b"%PDF", "a PDF file", "give a .zip, .tar, .tar.xz or .tar.gz of class folders"),
    (b"\x89PNG", "one picture", "give a folder or archive of class folders of pictures"),
    (b"\xff\xd8\xff", "one picture", "give a folder or archive of class folders of pictures"),
    *(
        (bytes((0x80, version)), "a Python pickle, which could run any code", _NPZ)
        for version in range(2, 6)
    ),
)
_ENDINGS = {
    ".tfrecord": (
        "TFRecords",
        "give the data_dir of tensorflow-datasets, --config.data.source=tfds",
    ),
    ".csv": ("a table of text", _NPZ),
    ".mdb": ("an LMDB database", f"export it and {_NPZ}"),
}


def other_format(path: Path) -> tuple[str, str] | None:
    """Return the name of an unsupported file format and what to convert it to; None if unknown."""
    try:
        with regular.opened(path) as plain:
            head = plain.read(128)
            plain.seek(0)
            opener = next((o for magic, o in _OPENERS if head.startswith(magic)), None)
            head = opener(plain).read(128) if opener else head
    except (*_DAMAGE,):
        return None
    for magic, name, remedy in _FORMATS:
        if head.startswith(magic):
            return name + (", compressed" if opener else ""), remedy
    return _ENDINGS.get(path.suffix.lower())


class Entry(NamedTuple):
    """One file or folder: its path inside, split at "/", and its bytes (None if not wanted)."""

    parts: Parts
    data: bytes | None
    folder: bool = False


def walk(path: Path, wanted: Callable[[Parts], bool]) -> Iterator[Entry]:
    """Yield every entry below a folder or in an archive, in stored order.

    Args:
      path: a folder, a .zip or a .tar, .tar.xz, .tar.gz, .tar.bz2; recognised by content.
      wanted: True for entries whose bytes are read.

    Raises:
      BadInput: no archive, a damaged or truncated one, a link, or an entry that points outside.
    """
    if path.is_dir():
        yield from _walk_folder(path, wanted)
        return
    regular.validate_no_device(path, "a folder or an archive")
    try:
        if path.stat().st_size == 0:
            raise BadInput(str(path), "empty file", "give an archive with class folders of images")
        if zipfile.is_zipfile(path):
            yield from _walk_zip(path, wanted)
        else:
            yield from _walk_tar(path, wanted)
    except _DAMAGE as error:
        if (other := other_format(path)) is not None:
            raise BadInput(str(path), *other) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadInput(
            str(path), f"not a whole archive ({reason})", "give a .zip, .tar, .tar.xz or .tar.gz"
        ) from None


def _walk_folder(top: Path, wanted: Callable[[Parts], bool]) -> Iterator[Entry]:
    try:
        for here, folders, names in files.walk(top):
            inside = Path(here).relative_to(top).parts
            for name in folders:
                yield Entry((*inside, name), None, True)
            for name in names:
                parts, file = (*inside, name), os.path.join(here, name)
                yield Entry(parts, regular.read_bytes(file) if wanted(parts) else None)
    except OSError as error:
        raise BadInput(
            str(error.filename or top),
            error.strerror or "cannot be read",
            "make it readable or remove it",
        ) from None


def _walk_zip(path: Path, wanted: Callable[[Parts], bool]) -> Iterator[Entry]:
    with zips.opened(path) as archive:
        infos = archive.infolist()
        if not infos:
            raise BadInput(str(path), "an archive without entries", "give class folders of images")
        for info in infos:
            parts = _inside(path, info.filename)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _outside(path, info.filename, "is a link")
            # Windows programs write folders as "name\\", which zipfile reports as files.
            if info.is_dir() or info.filename.endswith("\\"):
                if parts:
                    yield Entry(parts, None, True)
            elif wanted(parts):
                regular.validate_size(f"{path}:{info.filename}", info.file_size)
                yield Entry(parts, archive.read(info))
            else:
                # A flipped bit of a name must not leave a picture out: it stands in the file twice.
                with contextlib.suppress(RuntimeError):  # encrypted, or compressed in another way
                    archive.open(info).close()
                yield Entry(parts, None)


def _walk_tar(path: Path, wanted: Callable[[Parts], bool]) -> Iterator[Entry]:
    with regular.opened(path) as plain:
        head = plain.read(8)
        plain.seek(0)
        opener = next((o for magic, o in _OPENERS if head.startswith(magic)), None)
        stream = _Tail(opener(plain) if opener else plain)
        # Stream mode never seeks: one step back would decompress everything again.
        entries = 0
        with tarfile.open(fileobj=stream, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                entries += 1
                parts = _inside(path, info.name)
                if info.isdir():
                    if parts:
                        yield Entry(parts, None, True)
                    continue
                if not info.isreg():
                    raise _outside(path, info.name, "is a link or a device")
                # Of a member that is not wanted too: it is decompressed to reach the next one.
                regular.validate_size(f"{path}:{info.name}", info.size)
                content = archive.extractfile(info) if wanted(parts) else None
                yield Entry(parts, content.read() if content else None)
        # tarfile accepts an archive that is truncated between two entries.
        if not stream.ends_in_zeros():
            raise tarfile.ReadError("truncated: the end mark is missing")
        if not entries:
            raise BadInput(str(path), "an archive without entries", "give class folders of images")


class _Tail:
    """A reader that remembers its last bytes: a complete tar ends in two blocks of zeros."""

    def __init__(self, stream: IO[bytes]):
        self._stream, self._last = stream, b""

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        if data:
            self._last = (self._last + data)[-1024:]
        return data

    def ends_in_zeros(self) -> bool:
        while self.read(1 << 16):  # also lets the decompressor check its end
            pass
        return len(self._last) == 1024 and not any(self._last)


def _inside(path: Path, name: str) -> Parts:
    clean = name.replace("\\", "/")
    parts = tuple(part for part in clean.split("/") if part not in ("", "."))
    if clean.startswith("/") or ".." in parts or (parts and parts[0][1:2] == ":"):
        raise _outside(path, name, "points outside the archive")
    return parts


def _outside(path: Path, name: str, what: str) -> BadInput:
    return BadInput(f"{path}:{name}", what, "only files and folders inside are allowed")
