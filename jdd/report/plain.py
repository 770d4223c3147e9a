"""Tables in plain text, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from jdd.report import html


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return rows under their heads; the first ``left`` columns are left-aligned, others right."""
    lines = [list(head), *map(list, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def plural(count: int, one: str) -> str:
    """Return '1 image' or '10 images'."""
    return html.plural(count, one).replace(html.THIN, " ")


def accuracy(mean: float, std: float | None, n: int | None) -> str:
    """Return '91.2 ± 0.8' in percent; without ± if there was only one value."""
    spread = f" ± {100 * std:.1f}" if std is not None and n is not None and n > 1 else ""
    return f"{100 * mean:.1f}{spread}"
