"""Bits per channel, from the header of an image file.

Pillow reduces 16-bit colour to 8 bits while decoding, and the decoded image does not show it: only
the header does.
"""

from __future__ import annotations

import re
import struct

_PNG = b"\x89PNG\r\n\x1a\n"
_CODESTREAM = b"\xff\x4f\xff\x51"  # of JPEG 2000: start, then the sizes of the image
_BITS_PER_SAMPLE = 258  # TIFF
_HEAD = 1 << 16  # bytes at the start of an AVIF file that hold its properties


def stated(data: bytes) -> int:
    """Return the largest number of bits per channel of a PNG, ICO, TIFF, PPM, PGM, JPEG, JPEG 2000
    or AVIF file; 8 for any other format and for a truncated header.
    """
    try:
        if data.startswith(_PNG):
            return data[24]
        if data.startswith(b"\0\0\1\0"):  # ICO, whose pictures may be PNG files
            return max((data[m.start() + 24] for m in re.finditer(_PNG, data)), default=8)
        if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            return _tiff(data)
        if data[:2] in (b"P2", b"P3", b"P5", b"P6"):
            words = re.sub(rb"#[^\r\n]*", b"", data[:1024]).split()
            return int(words[3]).bit_length()
        if data.startswith(b"\xff\xd8"):
            return _jpeg(data)
        if data.startswith(_CODESTREAM) or data[4:8] == b"jP  ":
            at = data.index(_CODESTREAM)
            count = struct.unpack_from(">H", data, at + 40)[0]
            return max(1 + (data[at + 42 + 3 * i] & 0x7F) for i in range(count))
        if data[4:12] in (b"ftypavif", b"ftypavis"):
            # av1C: the third byte has a flag for more than 8 bits and one for 12.
            flags = [data[m.end() + 2] for m in re.finditer(b"av1C", data[:_HEAD])]
            return max((10 + (f >> 4 & 2) if f & 0x40 else 8 for f in flags), default=8)
    except (struct.error, IndexError, ValueError):
        return 8  # truncated: decoding reports the error
    return 8


def _tiff(data: bytes) -> int:
    """Read BitsPerSample of the first image, in either order of bytes and either size of file."""
    order, big = {b"I": "<", b"M": ">"}[data[:1]], b"+" in data[2:4]
    word, number, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    at = struct.unpack_from(order + word, data, 8 if big else 4)[0]
    count = struct.unpack_from(order + number, data, at)[0]
    at += struct.calcsize(order + number)
    for i in range(min(count, 1000)):
        tag, _, values = struct.unpack_from(f"{order}HH{word}", data, at + entry * i)
        if tag != _BITS_PER_SAMPLE:
            continue
        here, room = at + entry * i + entry - struct.calcsize(word), struct.calcsize(word)
        if 2 * values > room:
            here = struct.unpack_from(order + word, data, here)[0]
        return max(struct.unpack_from(f"{order}{min(values, 16)}H", data, here))
    return 1


def _jpeg(data: bytes) -> int:
    """Read the precision of the first frame header."""
    at = 2
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[at + 4]
        if data[at] != 0xFF or marker in (0xD9, 0xDA):
            return 8
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
