"""The table of a study as text, CSV, Markdown, LaTeX (booktabs) and JSON.

A cell is mean ± population standard deviation over the seeds of one setting, each seed by the mean
over its nets; with one seed in the whole study, over the nets of its run.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jdd.report import plain
from jdd.schema.key import show
from jdd.specs import title
from jdd.studies import study_metric
from jdd.studies.study_file import Study

Label = tuple[str, ...]
METRIC = "metric"  # the last key of the columns where a table has several figures


class Entry(NamedTuple):
    """One place of the table; ``mean`` is None if nothing was measured, ``state`` is the reason."""

    mean: float | None
    std: float | None
    n: int
    state: str
    metric: str = "accuracy"


class Table(NamedTuple):
    """A study's figures by the values of its row keys and of its column keys.

    Attributes:
      metric: the figure in the table, as in ``study_metric``; '' for several, which are then the
        last key of the columns.
      over: the population of the spread, "seeds" or "nets".
      rows, columns: the keys.
      row_values, column_values: their values, in the order of the study.
      entries: by (row, column); places without a cell are missing.
    """

    metric: str
    over: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_values: tuple[tuple[Any, ...], ...]
    column_values: tuple[tuple[Any, ...], ...]
    entries: dict[tuple[int, int], Entry]

    @property
    def alike(self) -> int | None:
        """Return the common n of all figures, None if they differ or there are none."""
        counts = {entry.n for entry in self.entries.values() if entry.mean is not None}
        return counts.pop() if len(counts) == 1 else None


def build(study: Study, cells: Sequence[Mapping[str, Any]]) -> Table:
    """Return the table of a study from the cells of study.json."""
    over = "seeds" if len({cell["seed"] for cell in cells}) > 1 else "nets"
    rows: dict[tuple[Any, ...], int] = {}
    columns: dict[tuple[Any, ...], int] = {}
    places: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    several = len(study.metrics) > 1
    metrics: dict[tuple[int, int], str] = {}
    for cell, metric in itertools.product(cells, study.metrics):
        row = rows.setdefault(tuple(cell["values"][key] for key in study.rows), len(rows))
        column = tuple(cell["values"][key] for key in study.columns)
        column += (metric,) if several else ()
        at = columns.setdefault(column, len(columns))
        places.setdefault((row, at), []).append(cell)
        metrics[row, at] = metric
    entries = {place: _entry(found, over, metrics[place]) for place, found in places.items()}
    keys = (*study.columns, METRIC) if several else study.columns
    metric = "" if several else study.metrics[0]
    return Table(metric, over, study.rows, keys, tuple(rows), tuple(columns), entries)


def _entry(cells: Sequence[Mapping[str, Any]], over: str, metric: str) -> Entry:
    found = [cell.get("figures", {metric: cell["figure"]})[metric] for cell in cells]
    figures = [figure for figure in found if figure]
    states = [str(cell["state"]) for cell in cells]
    state = next((name for name in ("failed", "running", "waiting") if name in states), "complete")
    if not figures:
        return Entry(None, None, 0, state, metric)
    if over == "nets":
        one = figures[0]
        return Entry(one["mean"], one["std"], one["n"] or 1, state, metric)
    means = [float(figure["mean"]) for figure in figures]
    spread = statistics.pstdev(means) if len(means) > 1 else None
    return Entry(statistics.fmean(means), spread, len(means), state, metric)


def caption(table: Table) -> str:
    """Return the caption: the figure, its spread and its unit."""
    words = "; ".join(
        f"{'' if table.metric else f'{metric}: '}{study_metric.words(metric)}"
        for metric in dict.fromkeys(e.metric for e in table.entries.values()) or [table.metric]
    )
    one = table.over.removesuffix("s")
    n = table.alike
    spread = any(entry.std is not None for entry in table.entries.values())
    what = f"mean ± population standard deviation over the {table.over}" if spread else "mean"
    if n is None:
        return f"{words}: {what} (in brackets: their number n)"
    if n == 1:
        return f"{words}: one {one}"
    return f"{words}: {what}, n = {n} {table.over}"


def label(key: str, value: Any) -> str:
    """Format the value of a key for a table; a method by its title."""
    return title(str(value)) if key == "method" else show(value)


def _figure(table: Table, entry: Entry | None, between: str) -> tuple[str, str]:
    """Return a figure with its spread, and its n unless it is common to all figures."""
    if entry is None:
        return "-", ""
    if entry.mean is None:  # a complete cell that has no such figure, or one without any
        return "-" if entry.state == "complete" else entry.state, ""
    words = study_metric.shown(entry.metric, entry.mean)
    if entry.std is not None and entry.n > 1:
        words += between + study_metric.shown(entry.metric, entry.std)
    return words, "" if table.alike is not None else str(entry.n)


def _head(table: Table, at: int) -> str:
    values = zip(table.columns, table.column_values[at], strict=True)
    words = ", ".join(
        label(key, value) if key in ("method", METRIC) else f"{key}={label(key, value)}"
        for key, value in values
    )
    return words or table.metric


def _grid(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return heads and lines of text."""
    head = [*table.rows, *(_head(table, at) for at in range(len(table.column_values)))]
    lines = []
    for row, values in enumerate(table.row_values):
        line = [label(key, value) for key, value in zip(table.rows, values, strict=True)]
        for at in range(len(table.column_values)):
            words, n = _figure(table, table.entries.get((row, at)), " ± ")
            line.append(f"{words} ({n})" if n else words)
        lines.append(line)
    return head, lines


def text(table: Table) -> str:
    """Return the table for a terminal."""
    head, lines = _grid(table)
    return f"{caption(table)}\n{plain.table(head, lines, left=len(table.rows))}"


def markdown(table: Table) -> str:
    """Return the table in Markdown."""
    head, lines = _grid(table)
    escaped = [[cell.replace("|", "\\|") for cell in line] for line in (head, *lines)]
    aligned = ["---"] * len(table.rows) + ["--:"] * len(table.column_values)
    rows = [escaped[0], aligned, *escaped[1:]]
    body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{_sentence(table)}\n\n{body}\n"


def as_csv(table: Table) -> str:
    """Return one line per place: keys, metric, mean, std, n and state; accuracies as fractions.

    Numbers are not rounded; missing ones are empty.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    spans = tuple(key for key in table.columns if key != METRIC)
    writer.writerow([*table.rows, *spans, METRIC, "mean", "std", "n", "over", "state"])
    for (row, at), entry in sorted(table.entries.items()):
        shown = (*table.row_values[row], *table.column_values[at][: len(spans)])
        numbers = ["" if value is None else repr(value) for value in (entry.mean, entry.std)]
        writer.writerow(
            [*map(show, shown), entry.metric, *numbers, entry.n, table.over, entry.state]
        )  # fmt: skip
    return out.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip


def escaped(words: str) -> str:
    """Escape the special characters of LaTeX."""
    return re.sub(r"[\\&%$#_{}~^±<>]", lambda found: _LATEX[found[0]], words)


def latex(table: Table) -> str:
    """Return the table as a LaTeX ``table`` of the package booktabs, for ``\\input``."""
    left = max(1, len(table.rows))
    lines = [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escaped(_sentence(table))}}}",
        rf"\begin{{tabular}}{{{'l' * left}{'r' * len(table.column_values)}}}",
        r"\toprule",
        *_latex_heads(table, left),
        r"\midrule",
    ]
    for row, values in enumerate(table.row_values):
        cells = [escaped(label(k, v)) for k, v in zip(table.rows, values, strict=True)] or [""]
        for at in range(len(table.column_values)):
            entry = table.entries.get((row, at))
            words, n = _figure(table, entry, r" \pm ")
            if entry is None:
                words = "--"
            elif entry.mean is not None:
                words = f"${words}$" + (f" ({n})" if n else "")
            cells.append(words)
        lines.append(f"{' & '.join(cells)} \\\\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def _latex_heads(table: Table, left: int) -> list[str]:
    """Return one head line per column key, equal values under one head, then the row keys' line."""
    corner = [escaped(key) for key in table.rows] or [""]
    if not table.columns:
        return [f"{' & '.join([*corner, escaped(table.metric)])} \\\\"]
    lines = []
    for depth, key in enumerate(table.columns):
        last = depth == len(table.columns) - 1
        heads, rules, at = [], [], left + 1
        groups = itertools.groupby(table.column_values, key=lambda v: v[: depth + 1])
        for values, group in groups:
            width = len(list(group))
            word = escaped(label(key, values[-1]))
            word = word if key in ("method", METRIC) else f"{escaped(key)} {word}"
            heads.append(rf"\multicolumn{{{width}}}{{{'r' if last else 'c'}}}{{{word}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + width - 1}}}")
            at += width
        lines.append(f"{' & '.join([*(corner if last else [''] * left), *heads])} \\\\")
        if not last:
            lines.append("".join(rules))
    return lines


def _sentence(table: Table) -> str:
    words = caption(table)
    return words[0].upper() + words[1:] + "."


def files(table: Table) -> dict[str, str]:
    """Return the text of each file of the table by its name."""
    return {"table.csv": as_csv(table), "table.md": markdown(table), "table.tex": latex(table)}


def as_json(table: Table) -> dict[str, Any]:
    """Return the table in the form of study.json; accuracies are fractions."""
    return {
        "caption": caption(table),
        "metric": table.metric,
        "over": table.over,
        "entries": [
            {
                "row": dict(zip(table.rows, table.row_values[row], strict=True)),
                "column": dict(zip(table.columns, table.column_values[at], strict=True)),
                **{k: v for k, v in entry._asdict().items() if k != METRIC},
            }
            for (row, at), entry in sorted(table.entries.items())
        ],
    }
