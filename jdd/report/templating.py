"""Renders the page templates. The only module that imports Jinja2, and only when rendering."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from jdd.report.html import DASH, THIN, Html, percent
from jdd.report.style import CSS

if TYPE_CHECKING:
    from jinja2 import Environment

# Forbids external resources and scripts, whatever a class name or a command contains.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render(name: str, **values: object) -> str:
    """Return the page rendered from the template ``name`` with ``values``.

    Every value is escaped, except ``Html`` (SVG charts and the style sheet). A missing value is an
    error.
    """
    return _environment().get_template(name).render(**values)


def place(fraction: float) -> str:
    """Return the position of a fraction on a scale from 0 to 100 %."""
    return f"{100 * min(max(fraction, 0.0), 1.0):.2f}%"


@functools.cache
def _environment() -> Environment:
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.PackageLoader("jdd.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"place": place, "percent": percent}
    made.globals |= {"css": Html(CSS), "policy": POLICY, "dash": DASH, "thin": THIN}
    return made
