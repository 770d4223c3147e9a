"""Keys that a user has changed: in the first line of a run and in the name of its directory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from jdd.config import files
from jdd.config.resolve import fill, resolve_auto, stored
from jdd.config.resuming import changed
from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.key import AUTO, show
from jdd.schema.pairs import PairConfig
from jdd.schema.values import flat

# Named in every directory, or about where things lie.
_OUTSIDE = (
    "method",
    "data.name",
    "data.path",
    "ipc",
    "pairs",
    "seed",
    "experts.dir",
    "squeeze.dir",
)
_SETS = ("init_set", "latent.prior")  # paths of products
_LONGEST = 150  # characters of a directory's name


def changes(config: Common, given: Collection[str]) -> dict[str, tuple[Any, Any]]:
    """Return the ``given`` keys whose value is not the method's default, with (value, default).

    The default is the published row's value for the dataset and IPC where there is one.
    """
    values, keys = flat(config), config.spec.keys
    same = {name: values[name] for name in ("data.name", "ipc") if name in given}
    plain = fill(config.spec, same)
    base = resolve_auto(plain)[0] if plain.data.name else flat(plain)
    base |= {name: keys[name].default for name in same}
    found = {name: (values[name], base[name]) for name in keys if name in given}
    return {name: pair for name, pair in found.items() if pair[0] not in (pair[1], AUTO)}


def sentence(config: Common, given: Collection[str]) -> str:
    """Return one line that lists the changed keys and their defaults; '' if there are none."""
    found = [
        f"{name}={show(value)} (not {show(default) or 'empty'})"
        for name, (value, default) in changes(config, given).items()
        if name not in ("method", "data.name", "data.path")
    ]
    return f"changed from {config.spec.title}'s defaults: {', '.join(found)}" if found else ""


def default_workdir(config: Common, spec: str | Path | None, given: Collection[str] = ()) -> str:
    """Return ``runs/<config>-<dataset>-ipc<n>-s<seed>[-<key>_<value> ...]``.

    Named are the ``given`` keys that are changed and that a resumed run may not change. A run of
    this config in the directory without keys, where older versions of jdd put it, is found there.
    """
    stem = Path(files.split(spec)[0]).name.removesuffix(".py")
    size = f"pairs{config.pairs}" if isinstance(config, PairConfig) else f"ipc{config.ipc}"
    plain = _path(f"{stem}-{config.data.name}-{size}-s{config.seed}")
    keys = config.spec.keys
    words = [
        f"{name}_{_set_name(value) if name in _SETS else show(value)}"
        for name, (value, _) in changes(config, given).items()
        if name not in _OUTSIDE and not keys[name].resumable
    ]
    if not words or _holds(Path(plain), config):
        return plain
    tail = "-" + "-".join(words)
    if len(plain) + len(tail) > _LONGEST:
        tail = (
            tail[: _LONGEST - len(plain) - 9] + f"-{hashlib.sha256(tail.encode()).hexdigest()[:8]}"
        )
    return _path(plain.removeprefix("runs/") + tail)


def _set_name(path: str) -> str:
    """Return what a set is called in a directory's name: its run's folder, or its file."""
    place = Path(path)
    return place.parent.name if place.name == "distilled.npz" else place.name.removesuffix(".npz")


def _path(words: str) -> str:
    return "runs/" + re.sub(r"[^\w.+-]+", "_", words)


def _holds(directory: Path, config: Common) -> bool:
    """Return whether a directory holds a run of this config."""
    saved = directory / "config.json"
    if not saved.is_file():
        return False
    try:
        old = stored(saved, config.spec)
    except (BadInput, OSError):
        return False
    return not changed(old, config)[0]
