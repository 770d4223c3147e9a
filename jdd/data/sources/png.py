"""Checksums of PNG files: Pillow does not compare those of the pixels, and decodes damaged ones."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def whole(data: bytes) -> bool:
    """Return whether every chunk of a PNG file up to its end has the CRC-32 that it states."""
    view, at = memoryview(data), len(_SIGNATURE)
    while at + 12 <= len(data):
        length = struct.unpack_from(">I", data, at)[0]
        end = at + 8 + length  # of length, name and content
        if end + 4 > len(data):
            return False
        if zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at = end + 4
    return False
