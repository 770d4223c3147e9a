"""Opening files of unknown origin: regular ones alone, within limits, inside their folder.

A pipe would wait for ever and a device never end, and a few bytes of an archive may stand for
gigabytes. Two environment variables raise the limits:

    JDD_MAX_FILE_MB     the largest file read as a whole that is no array: a picture, a text (1024)
    JDD_MAX_EXPANSION   how many times its compressed size an array of more than 64 MB may be (200)
"""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path, PurePosixPath

from jdd.errors import BadInput

FILE, EXPANSION = "JDD_MAX_FILE_MB", "JDD_MAX_EXPANSION"
_DEFAULTS = {FILE: 1024, EXPANSION: 200}
_SMALL = 64 << 20  # bytes of an array that may be compressed to any size
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def opened(path: str | os.PathLike[str], allowed: str = "a regular file") -> io.BufferedReader:
    """Open a regular file for reading, without waiting for one that is none.

    Raises:
      BadInput: it is a folder, a pipe, a socket or a device.
      OSError: it cannot be opened.
    """
    # Without O_NONBLOCK opening a pipe waits for its writer.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(mode := os.fstat(handle).st_mode):
        os.close(handle)
        raise _other(path, mode, allowed)
    return open(handle, "rb")


def validate(path: str | os.PathLike[str], allowed: str = "a regular file") -> None:
    """Refuse what is there and is neither a regular file nor absent, for libraries that open it.

    Raises:
      BadInput: it is a folder, a pipe, a socket or a device.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # its reader names the cause
    if not stat.S_ISREG(mode):
        raise _other(path, mode, allowed)


def validate_no_device(path: str | os.PathLike[str], allowed: str = "a file or a folder") -> None:
    """Refuse a pipe, a socket or a device.

    Raises:
      BadInput: naming it.
    """
    if not os.path.isdir(path):
        validate(path, allowed)


def _other(path: str | os.PathLike[str], mode: int, allowed: str) -> BadInput:
    found = next((words for test, words in _KINDS if test(mode)), "no regular file")
    return BadInput(os.fspath(path), f"is {found}", f"{allowed} is needed")


def read_bytes(path: str | os.PathLike[str], allowed: str = "a regular file") -> bytes:
    """Return the content of a regular file of at most ``JDD_MAX_FILE_MB``.

    Raises:
      BadInput: it is no regular file, or larger.
      OSError: it cannot be read.
    """
    with opened(path, allowed) as file:
        validate_size(os.fspath(path), os.fstat(file.fileno()).st_size)
        return file.read()


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Return the text of a regular file of at most ``JDD_MAX_FILE_MB``.

    Raises:
      BadInput: as ``read_bytes``.
      OSError, UnicodeDecodeError: it cannot be read, or is of another encoding.
    """
    return read_bytes(path).decode(encoding).replace("\r\n", "\n")


def validate_size(where: str, size: int) -> None:
    """Refuse a file or a member of an archive that is too large to be read as a whole.

    Raises:
      BadInput: naming the variable that raises the limit.
    """
    most = _limit(FILE)
    if size > most << 20:
        found = f"{size >> 20} MB to be read as a whole"
        raise BadInput(where, found, f"at most {most} MB; {FILE}={(size >> 20) + 1} allows it")


def validate_expansion(where: str, info: zipfile.ZipInfo) -> None:
    """Refuse an array that is large and far larger than its compressed form.

    Raises:
      BadInput: naming the variable that raises the limit.
    """
    ratio, most = info.file_size / max(1, info.compress_size), _limit(EXPANSION)
    if info.file_size > _SMALL and ratio > most:
        found = f"{info.file_size >> 20} MB from {info.compress_size >> 10} KB, {ratio:.0f} times"
        allowed = f"at most {most} times; {EXPANSION}={int(ratio) + 1} allows it"
        raise BadInput(where, found, allowed)


def _limit(name: str) -> int:
    text = os.environ.get(name, "")
    if not text:
        return _DEFAULTS[name]
    if not (text.isascii() and text.isdigit() and int(text)):
        raise BadInput(name, repr(text), f"a whole number, 1 or more; {_DEFAULTS[name]} if unset")
    return int(text)


def inside(folder: Path, name: str, where: str) -> Path:
    """Return the path of a file that a text names, relative or whole, which must lie in ``folder``.

    Raises:
      BadInput: the name leads elsewhere, or goes up.
    """
    plain = PurePosixPath(name.replace("\\", "/"))
    if plain.is_relative_to(folder.absolute().as_posix()):
        plain = plain.relative_to(folder.absolute().as_posix())
    parts = plain.parts
    drive = bool(parts) and parts[0][1:2] == ":"
    if not parts or parts[0] == "/" or ".." in parts or drive or "\0" in name:
        raise BadInput(where, f"{name!r:.200} lies outside {folder}", "a path inside it")
    return folder.joinpath(*parts)
