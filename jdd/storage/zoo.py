"""The zoo: distilled sets that ship with jdd, by name: ``zoo:mtt-digits-ipc1``.

    sets/NAME/distilled.npz   the set, with its recipe
    sets/NAME/result.json     accuracies and baselines, command, commit, versions
    sets/NAME/config.json     every key of the run
    sets/NAME/metrics.jsonl   its curves

Each file is as the run wrote it, but for the matrix of a whitening, which is left out. They are
only read: an installed jdd may be read-only.
"""

from __future__ import annotations

import os
from pathlib import Path

from jdd.errors import BadInput, nearest
from jdd.storage import shipped

PREFIX = "zoo:"


def sets() -> dict[str, Path]:
    """Return the folder of every set of the zoo by name, sorted."""
    found = sorted(shipped.folder("sets").glob("*/distilled.npz"))
    return {path.parent.name: path.parent for path in found}


def is_name(path: str | os.PathLike[str]) -> bool:
    """Return whether a path is the name of a set of the zoo: ``zoo:NAME``."""
    return os.fspath(path).startswith(PREFIX)


def local(path: str | os.PathLike[str]) -> Path:
    """Return the folder of a set of the zoo; any other path as it is.

    Raises:
      BadInput: the zoo has no set of this name.
    """
    if not is_name(path):
        return Path(path)
    name, known = os.fspath(path).removeprefix(PREFIX), sets()
    if name not in known:
        near = nearest(name, known)
        hint = f"did you mean {PREFIX}{near}? " if near else ""
        raise BadInput(os.fspath(path), "no such set", f"{hint}(the zoo has: {', '.join(known)})")
    return known[name]
