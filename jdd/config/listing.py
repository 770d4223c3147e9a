"""The lines of ``jdd list methods|datasets|nets|configs|sets``."""

from __future__ import annotations

import ast
import shutil
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jdd import specs
from jdd.config import files
from jdd.errors import BadInput, nearest
from jdd.storage import json_files, zoo

# The first line of each list: what it lists, and how a name of it is given.
_HEADS = {
    "methods": "methods of making a set: jdd --config=METHOD:DATASET, with its published settings",
    "datasets": "datasets by name: jdd --config=METHOD:DATASET",
    "nets": "nets by name: --config.net.name=NET, and --config.nets=NET,NET to test a set",
    "configs": "files of settings: jdd --config=FILE[:DATASET]; one for each method, and {others}",
    "sets": "distilled sets that come with jdd: jdd.load(SET), jdd --mode=evaluate --set=SET",
}
_NARROWEST = 60


def lines(kind: str) -> str:
    """Return a heading and a line for each method, dataset, net or bundled config.

    Lines wider than the terminal, or than 100 columns where there is none, are wrapped.

    Raises:
      BadInput: no such list.
    """
    if kind not in KINDS:
        near = nearest(kind, KINDS)
        hint = f"did you mean {near}? " if near else ""
        found = repr(kind) if kind else "no name of a list"
        raise BadInput("jdd list", found, f"{hint}(lists: {', '.join(KINDS)})")
    rows = KINDS[kind]()
    left = max(map(len, rows)) + 2
    columns = max(_NARROWEST, shutil.get_terminal_size((100, 24)).columns)
    others = ", ".join(sorted(set(files.bundled()) - set(specs.names())))
    head = _HEADS[kind].format(others=others)
    shown = [
        textwrap.fill(
            f"{name:<{left}}{words}", columns, subsequent_indent=" " * left, break_on_hyphens=False
        )
        for name, words in rows.items()
    ]
    return "\n".join([head, *shown])


def _methods() -> dict[str, str]:
    return {name: _first_line(specs.FOLDER / f"{name}.py") for name in specs.names()}


def _configs() -> dict[str, str]:
    return {name: _first_line(path) for name, path in files.bundled().items()}


def _first_line(path: Path) -> str:
    """Return the first line of a file's docstring; the file is not run."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


def _datasets() -> dict[str, str]:
    from jdd.data.catalogue import CATALOGUE  # needs NumPy

    rows = {}
    for name, facts in CATALOGUE.items():
        size = "x".join(map(str, facts.shape))
        train, test = facts.sizes
        where = {"digits": "comes with scikit-learn", "tfds": "from tensorflow-datasets, or a path"}
        source = where.get(facts.source, "with --config.data.path=...")
        rows[name] = f"{size}, {facts.classes} classes, {train} + {test} images; {source}"
    rows["digits_captions"] = "8x8x1 digits with captions, for methods of pairs; scikit-learn"
    rows["any other name"] = "your own images: --config=METHOD:NAME --config.data.path=..."
    return rows


def _nets() -> dict[str, str]:
    from jdd.nets import describe  # needs JAX

    return describe()


def _sets() -> dict[str, str]:
    return {f"{zoo.PREFIX}{name}": _measured(folder) for name, folder in zoo.sets().items()}


def _measured(folder: Path) -> str:
    """Return the measured result of a set of the zoo in words."""
    found = json_files.read(folder / "result.json", "install jdd anew")
    net, score = next(iter((found.get("metrics") or found["accuracy"]).items()))
    random = (found.get("baselines") or {}).get("random")
    words = f"{specs.title(found['method'])} on {found['dataset']}: {_percent(score)}"
    words += f" ({net}, n={score['n']})"
    return words + (f", random real images {_percent(random)}" if random else "")


def _percent(score: Mapping[str, Any]) -> str:
    spread = f" ± {100 * score['std']:.1f}" if score["n"] > 1 else ""
    return f"{100 * score['mean']:.1f}{spread} %"


KINDS: dict[str, Callable[[], dict[str, str]]] = {
    "methods": _methods,
    "datasets": _datasets,
    "nets": _nets,
    "configs": _configs,
    "sets": _sets,
}
