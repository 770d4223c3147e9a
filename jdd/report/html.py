"""Formatting of numbers, and the markup of SVG charts; text is escaped."""

from __future__ import annotations

import math
from html import escape

THIN = "\u202f"  # narrow no-break space: between a number and its unit
DASH = "\u2013"


class Html(str):
    """Text that is already markup; templates insert it unescaped."""

    def __html__(self) -> str:
        return self


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """Return an element; children and attribute values are escaped unless they are ``Html``.

    ``cls`` becomes class and ``_`` in a name becomes ``-``; attributes that are None are omitted.
    """
    words = [name]
    for key, value in attributes.items():
        if value is not None:
            key = "class" if key == "cls" else key.replace("_", "-")
            words.append(f'{key}="{escape(str(value))}"')
    start = f"<{' '.join(words)}>"
    return Html(start if name in ("img", "meta", "br") else f"{start}{join(*children)}</{name}>")


def join(*children: object) -> Html:
    """Return the concatenated children, escaped unless they are ``Html``; skip None."""
    parts = (c if isinstance(c, Html) else escape(str(c)) for c in children if c is not None)
    return Html("".join(parts))


def percent(fraction: float, unit: bool = True) -> str:
    """Return 0.9123 as '91.2 %'."""
    return f"{100 * fraction:.1f}" + (f"{THIN}%" if unit else "")


def mean_std(mean: float, std: float | None, n: int | None) -> str:
    """Return '91.2 ± 0.8 %'; without ± if there was only one value."""
    if std is None or n is None or n < 2:
        return percent(mean)
    return f"{percent(mean, False)}{THIN}±{THIN}{percent(std)}"


def number(value: float) -> str:
    """Return a number in its shortest form: 5000, 0.0102, 1e-07."""
    if value == int(value) and abs(value) < 1e7:
        return f"{int(value)}"
    return f"{value:.3g}"


def figure(value: float) -> str:
    """Return a figure with three significant digits and no exponent: 1230, 12.3, 0.0123."""
    if value == 0 or not 1e-4 <= abs(value) < 1e4:
        return number(value)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """Return a duration as text: '8.1 s', '2 min 03 s', '1 h 02 min'."""
    if seconds < 60:
        return f"{seconds:.1f}{THIN}s" if seconds < 10 else f"{seconds:.0f}{THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{THIN}min {rest:02d}{THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}{THIN}h {minutes:02d}{THIN}min"


def size(count: float) -> str:
    """Return bytes in a unit that makes the number short."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f}{THIN}{unit}" if count >= 100 else f"{count:.3g}{THIN}{unit}"


def plural(count: int, one: str) -> str:
    """Return '1 image' or '10 images'."""
    return f"{count:,}".replace(",", THIN) + f" {one}{'' if count == 1 else 's'}"
