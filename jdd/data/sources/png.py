"""Checksums of PNG files: Pillow compares those before the pixels, but not those of the pixels."""

from __future__ import annotations

import struct
import zlib

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# What an image is decoded from; eXIf, which may follow the pixels, states how it is turned.
_COMPARED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"eXIf")


def whole(data: bytes) -> bool:
    """Return whether every chunk that an image is decoded from has the CRC-32 that it states.

    Texts and other chunks, and the end of a file after its pixels, may be damaged or missing.
    """
    view, at = memoryview(data), len(_SIGNATURE)
    while at + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        end = at + 8 + length  # of length, name and content
        if name in _COMPARED and (
            end + 4 > len(data)
            or zlib.crc32(view[at + 4 : end]) != struct.unpack_from(">I", data, end)[0]
        ):
            return False
        if name == b"IEND":
            break
        at = end + 4
    return True
