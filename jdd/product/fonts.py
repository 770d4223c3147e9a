"""Fonts for the names in pictures: the first one that has every glyph of a text."""

from __future__ import annotations

import subprocess
import unicodedata
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_ABSENT = "\U0010ffff"  # no font has it: its picture is that of every missing glyph


@cache
def font_for(text: str, size: int) -> Any:
    """Return a font with every glyph of ``text``; None if this machine has none.

    Looked for in Pillow's own font, the DejaVu Sans of Matplotlib, and those that fontconfig lists.
    """
    from PIL import features

    if _joined(text) and not features.check("raqm"):  # letters would stand apart, left to right
        return None
    return next((font for font in _fonts(text, size) if _has(font, text)), None)


def _fonts(text: str, size: int) -> Iterator[Any]:
    yield _own(size)
    for path in _paths(text):
        if (font := _read(path, size)) is not None:
            yield font


@cache
def _own(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


@cache
def _read(path: Path, size: int) -> Any:
    from PIL import ImageFont

    try:
        return ImageFont.truetype(str(path), size)
    except OSError:  # not there, or a format Pillow does not read
        return None


def _paths(text: str) -> Iterator[Path]:
    found = find_spec("matplotlib")
    if found is not None and found.origin:
        yield Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    points = " ".join(sorted({f"{ord(letter):x}" for letter in text if not letter.isspace()}))
    words = ["fc-list", f":charset={points}", "file"]
    try:
        listed = subprocess.run(words, capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):  # no fontconfig
        return
    # Plain styles first: they have the shortest names.
    for line in sorted(listed.splitlines(), key=lambda line: (len(line), line)):
        yield Path(line.strip().rstrip(":"))


def _has(font: Any, text: str) -> bool:
    if text.isascii():
        return True
    missing = _drawn(font, _ABSENT)
    return all(_drawn(font, one) != missing for one in set(text) if one.isprintable() and one > "~")


def _drawn(font: Any, letter: str) -> tuple[Any, bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


def _joined(text: str) -> bool:
    """Return whether a text runs from right to left or has combining marks of its script."""
    return any(
        unicodedata.bidirectional(one) in ("R", "AL") or unicodedata.category(one) in ("Mc", "Mn")
        for one in text
    )
