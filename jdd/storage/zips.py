"""Opening zip files whose directory is whole.

``zipfile`` compares the content of members with their checksums, and their names with those of the
directory at the end of the file, which has no checksum itself. A flipped bit of it may make a
member part of the comment of the one before, so that it is missing: their number is compared.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import IO

_END, _END_64 = b"PK\5\6", b"PK\6\6"  # the last records of a file
_TAIL = (1 << 16) + 22 + 20 + 56  # bytes of these records, with the longest comment
_MANY = 0xFFFF  # members: their number is in the record of 64 bits


def opened(file: str | os.PathLike[str] | IO[bytes]) -> zipfile.ZipFile:
    """Open a zip file for reading.

    Raises:
      zipfile.BadZipFile: it is none, it is damaged, or its directory lists another number of
        members than it states.
      OSError: it cannot be read.
    """
    archive = zipfile.ZipFile(file)
    listed, stated = len(archive.infolist()), _stated(archive)
    # Programs without records of 64 bits write the last 16 bits of the number.
    if (listed - stated) % (_MANY + 1) if stated <= _MANY else listed != stated:
        archive.close()
        raise zipfile.BadZipFile(f"{listed} members are listed, {stated} stated")
    return archive


def _stated(archive: zipfile.ZipFile) -> int:
    assert archive.fp is not None
    size = archive.fp.seek(0, os.SEEK_END)
    archive.fp.seek(max(0, size - _TAIL))
    tail = archive.fp.read()
    end, end_64 = tail.rfind(_END), tail.rfind(_END_64)
    count = int(struct.unpack_from("<H", tail, end + 10)[0])
    if count == _MANY and end_64 >= 0:
        count = int(struct.unpack_from("<Q", tail, end_64 + 32)[0])
    return count
