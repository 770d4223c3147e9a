"""Typography of the site: mkdocs calls these functions by their names."""

from __future__ import annotations

import re
from typing import Any

LONG = 48  # characters of a word that may still be broken


def on_page_content(html: str, **given: Any) -> str:
    """Return a page's HTML without line breaks inside ``a ± b`` and inside words of code."""
    html = html.replace(" ± ", "\u00a0±\u00a0")
    return re.sub(r"<pre.*?</pre>|<code>([^<]*)</code>", unbroken, html, flags=re.S)


def unbroken(found: re.Match[str]) -> str:
    """Return inline code whose words, but for very long ones, stay on one line; blocks as is."""
    if found[1] is None:
        return found[0]
    words = (
        f'<span class="word">{word}</span>' if len(word) <= LONG else word
        for word in found[1].split()
    )
    return f"<code>{' '.join(words)}</code>"
