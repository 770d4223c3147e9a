"""Draw the map of the code, ``docs/img/map.svg``: its rooms and which of them imports which.

    python docs/code_map.py

A room is a folder or a file at the top of ``jdd/``, or ``configs/``. Rooms stand in layers, and a
room imports only what stands below it. Of the imports that agree with this order the picture shows
those that no chain of others implies; every import against it is drawn in red.
"""

from __future__ import annotations

import ast
import html
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "img" / "map.svg"
WIDE, HIGH, GAP, RISE, MARGIN = 104, 30, 18, 62, 24  # of boxes and the space between them, pixels
Edge = tuple[str, str]


def rooms() -> list[str]:
    """Return the names of the rooms, sorted."""
    found = {room(f"jdd.{path.stem}") for path in (ROOT / "jdd").iterdir() if is_code(path)}
    return sorted((found - {""}) | {"configs"})


def is_code(path: Path) -> bool:
    """Return whether a path is a module or a package of modules."""
    return path.suffix == ".py" or (path.is_dir() and any(path.glob("*.py")))


def room(module: str) -> str:
    """Return the room of a module's dotted name; '' for one that is in none."""
    top, *rest = module.split(".")
    inside = rest[0] if top == "jdd" and rest else ""
    return top if top == "configs" else "" if inside.startswith("__") else inside


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def edges() -> Counter[Edge]:
    """Return how many imports lead from one room to another: (importer, imported) -> count."""
    found: Counter[Edge] = Counter()
    for folder in ("jdd", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            here = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
            for there in map(room, imports(path)):
                if here and there and here != there:
                    found[here, there] += 1
    return found


def order(names: Iterable[str], weights: Counter[Edge]) -> list[str]:
    """Return the rooms from importers to imported, with few imports (by count) against the order.

    Moves one room at a time to its best place until no move helps.
    """
    ranks = {n: sum(w * ((a == n) - (b == n)) for (a, b), w in weights.items()) for n in names}
    line = sorted(names, key=lambda n: (-ranks[n], n))
    while True:
        best, gain = line, 0
        for at, name in enumerate(line):
            rest = line[:at] + line[at + 1 :]
            cost = [weights[other, name] - weights[name, other] for other in rest]
            for to in range(len(line)):
                # Going up past a room turns the imports between the two around.
                passed = sum(cost[to:at]) if to < at else -sum(cost[at:to])
                if -passed > gain:
                    best, gain = [*rest[:to], name, *rest[to:]], -passed
        if not gain:
            return line
        line = best


def reduced(downward: Iterable[Edge], line: list[str]) -> list[Edge]:
    """Return the edges that no longer path of other edges implies."""
    below: dict[str, set[str]] = {name: set() for name in line}
    kept = []
    out = {name: [b for a, b in downward if a == name] for name in line}
    for name in reversed(line):
        for other in sorted(out[name], key=line.index):
            if other not in below[name]:
                kept.append((name, other))
                below[name] |= {other} | below[other]
    return sorted(kept)


def layers(line: list[str], downward: Iterable[Edge]) -> list[list[str]]:
    """Return the rooms by layer, the top first: a room stands just above the highest it imports."""
    height: dict[str, int] = {}
    for name in reversed(line):
        height[name] = max((height[b] + 1 for a, b in downward if a == name), default=0)
    top = max(height.values())
    return [[name for name in line if height[name] == top - i] for i in range(top + 1)]


def bends(rows: list[list[str]], arrows: Iterable[Edge]) -> dict[Edge, list[str]]:
    """Return each arrow as the chain of places that it goes through, adding one to every layer
    that it crosses, so that it does not run through a box.
    """
    layer = {name: i for i, row in enumerate(rows) for name in row}
    chains = {}
    for a, b in arrows:
        crossed = [f"{a} {b} {i}" for i in range(layer[a] + 1, layer[b])]
        for i, name in enumerate(crossed, layer[a] + 1):
            rows[i].append(name)
        chains[a, b] = [a, *crossed, b]
    return chains


def places(rows: list[list[str]], chains: Iterable[list[str]]) -> dict[str, tuple[float, float]]:
    """Return the centre of every place: each layer in order of its neighbours' mean place."""
    near: dict[str, list[str]] = {name: [] for row in rows for name in row}
    for chain in chains:
        for a, b in zip(chain, chain[1:], strict=False):
            near[a].append(b)
            near[b].append(a)
    width = max(sum(map(width_of, row)) for row in rows)
    x = {n: (i + 0.5) * width / len(row) for row in rows for i, n in enumerate(row)}
    for _ in range(40):
        for row in rows:
            mean = {n: sum(x[o] for o in near[n]) / len(near[n]) if near[n] else x[n] for n in row}
            row.sort(key=lambda n: (mean[n], n))
            x |= spaced([mean[n] for n in row], row, width)
    return {n: (MARGIN + x[n], MARGIN + HIGH / 2 + RISE * i) for i, r in enumerate(rows) for n in r}


def width_of(name: str) -> float:
    """Return the pixels that a box, or a place where an arrow passes, takes in its layer."""
    return GAP if " " in name else WIDE + GAP


def spaced(wanted: list[float], row: list[str], width: float) -> dict[str, float]:
    """Return places near the wanted ones, in this order, without overlap, inside the picture."""
    found: dict[str, float] = {}
    left, right = 0.0, sum(map(width_of, row))
    for want, name in zip(wanted, row, strict=True):
        half = width_of(name) / 2
        found[name] = min(max(want, left + half), width - right + half)
        left, right = found[name] + half, right - 2 * half
    return found


def arrow(points: list[tuple[float, float]], kind: str) -> str:
    """Return a curve through points; an import against the order leaves its box from above."""
    way = 1 if kind == "down" else -1
    (x1, y1), *middle, (x2, y2) = points
    points = [(x1, y1 + way * HIGH / 2), *middle, (x2, y2 - way * (HIGH / 2 + 5))]
    path = f"M{points[0][0]:.0f} {points[0][1]:.0f}"
    for (x1, y1), (x2, y2) in zip(points, points[1:], strict=False):
        bend = way * max(18.0, abs(y2 - y1) * 0.45)
        path += f"C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
    return f'<path class="{kind}" marker-end="url(#{kind})" d="{path}"/>'


STYLE = """
.box{fill:#e8eaf6;stroke:#3f51b5;stroke-width:1}
.file{fill:#fafafa;stroke:#9e9e9e}
text{font:13px ui-monospace,Menlo,Consolas,monospace;fill:#1a237e;text-anchor:middle}
path{fill:none;stroke-width:1.1}
.down{stroke:#8a8fa8}.up{stroke:#d32f2f;stroke-dasharray:4 3}
"""


def marker(kind: str, colour: str) -> str:
    """Return the head of an arrow."""
    return (
        f'<marker id="{kind}" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto"><path d="M0 0L8 4L0 8z" style="fill:{colour};stroke:none"/></marker>'
    )


def draw() -> str:
    """Return the picture as SVG text."""
    names, weights = rooms(), edges()
    line = order(names, weights)
    rank = {name: i for i, name in enumerate(line)}
    down = sorted(edge for edge in weights if rank[edge[0]] < rank[edge[1]])
    up = sorted(edge for edge in weights if rank[edge[0]] > rank[edge[1]])
    shown = reduced(down, line)
    rows = layers(line, down)
    chains = bends(rows, shown)
    at = places(rows, chains.values())
    width = max(at[name][0] for name in names) + WIDE / 2 + MARGIN
    height = max(y for _, y in at.values()) + HIGH / 2 + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">',
        "<title>Rooms of jdd and their imports</title>",
        f"<style>{STYLE}</style>",
        f"<defs>{marker('down', '#8a8fa8')}{marker('up', '#d32f2f')}</defs>",
        *(arrow([at[place] for place in chain], "down") for chain in chains.values()),
        *(arrow([at[a], at[b]], "up") for a, b in up),
    ]
    for name in names:
        x, y = at[name]
        kind = "box file" if (ROOT / "jdd" / f"{name}.py").exists() else "box"
        parts.append(
            f'<rect class="{kind}" x="{x - WIDE / 2:.0f}" y="{y - HIGH / 2:.0f}" '
            f'width="{WIDE}" height="{HIGH}" rx="5"/>'
            f'<text x="{x:.0f}" y="{y + 4:.0f}">{html.escape(name)}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    print(PICTURE)
