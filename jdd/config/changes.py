"""Keys that a user has changed: in the first line of a run and in the name of its directory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdd.config import files, fitting, probing
from jdd.config.nearest import Size
from jdd.config.resolve import fill, replace, resolve_auto, stored
from jdd.config.resuming import changed
from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.key import AUTO, Key, show
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
_SAME = ("data.name", "ipc")  # what settings are published for
_SETS = ("init_set", "latent.prior")  # paths of products
_LONGEST = 150  # characters of a directory's name


class Changed(NamedTuple):
    """A key that a user has changed: its value, and what it would be without.

    Attributes:
      probed: without it, the run would choose the value by a probe, which begins at ``default``.
    """

    value: Any
    default: Any
    probed: bool = False

    def __str__(self) -> str:
        default = show(self.default) or "empty"
        return f"{show(self.value)} (not {'probed from ' * self.probed}{default})"


def changes(
    config: Common, given: Collection[str], loaded: Size | None = None
) -> dict[str, Changed]:
    """Return the ``given`` keys without which the run would have another value, by name.

    That is the published row's value for the dataset and IPC where there is one; else, where
    settings are fitted to the data, the fitted one; else the method's default.

    Args:
      loaded: the size of a dataset of the user's own, once it is loaded.
    """
    values, plain = flat(config), _plain(config, given)
    fit = None
    if plain.data.name:
        fit = fitting.fitted(replace(plain, {"data.size": config.data.size}), (), loaded)
    base = _settled(config, plain, given, fit, loaded and loaded.shape)
    probes = (
        () if fit is None or values["steps"] == AUTO else probing.probed(config, values["steps"])
    )
    found = {
        name: Changed(values[name], base[name], name in probes)
        for name in config.spec.keys
        if name in given
    }
    return {
        name: one
        for name, one in found.items()
        if one.value != AUTO and (one.probed or one.value != one.default)
    }


def _plain(config: Common, given: Collection[str]) -> Common:
    """Return the config of the same data and IPC of which nothing else is given."""
    values = flat(config)
    return fill(config.spec, {name: values[name] for name in _SAME if name in given})


def _settled(
    config: Common,
    plain: Common,
    given: Collection[str],
    fit: fitting.Fitted | None = None,
    shape: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Return the values of ``_plain`` by dotted name, given keys of ``_SAME`` at their defaults."""
    plain = plain if fit is None else fit.applied(plain)
    values = resolve_auto(plain, shape, fit)[0] if plain.data.name else flat(plain)
    return values | {name: config.spec.keys[name].default for name in _SAME if name in given}


def sentence(config: Common, given: Collection[str], loaded: Size | None = None) -> str:
    """Return one line that lists the changed keys and their values without the change; '' if there
    are none.

    Args:
      loaded: as for ``changes``.
    """
    found = [
        f"{name}={one}"
        for name, one in changes(config, given, loaded).items()
        if name not in ("method", "data.name", "data.path")
    ]
    fitted = fitting.row_of(config, loaded) is not None
    base = f"the settings fitted to {config.data.name}" if fitted else ""
    base = base or f"{config.spec.title}'s defaults"
    return f"changed from {base}: {', '.join(found)}" if found else ""


def default_workdir(config: Common, spec: str | Path | None, given: Collection[str] = ()) -> str:
    """Return ``runs/<config>-<dataset>-ipc<n>-s<seed>[-<key>_<value> ...]``.

    Named are the ``given`` keys that are changed and that a resumed run may not change; where
    settings are fitted to the data, every given one of those, since its fitted value follows from
    images that are not loaded yet. A run of this config in a directory without these keys, where
    older versions of jdd put it, is found there.
    """
    stem = Path(files.split(spec)[0]).name.removesuffix(".py")
    size = f"pairs{config.pairs}" if isinstance(config, PairConfig) else f"ipc{config.ipc}"
    plain = _path(f"{stem}-{config.data.name}-{size}-s{config.seed}")
    values, keys = flat(config), config.spec.keys
    fitted = fitting.names(config) if fitting.may_be_fitted(config) else frozenset()
    base = _settled(config, _plain(config, given), given)
    typed = {name: values[name] for name in keys if name in given and values[name] != AUTO}
    differing = {name for name in typed if typed[name] != base[name]}
    named, older = (
        _named(plain, {name: value for name, value in typed.items() if name in some}, keys)
        for some in (differing | fitted, differing)
    )
    own = fitted - typed.keys()
    return next((at for at in (plain, older) if _holds(Path(at), config, own)), named)


def _named(plain: str, values: Mapping[str, Any], keys: Mapping[str, Key]) -> str:
    """Return a directory's name with the values of changed keys."""
    words = [
        f"{name}_{_set_name(value) if name in _SETS else show(value)}"
        for name, value in values.items()
        if name not in _OUTSIDE and not keys[name].resumable
    ]
    if not words:
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


def _holds(directory: Path, config: Common, free: Collection[str]) -> bool:
    """Return whether a directory holds a run of this config, whatever the values of ``free``."""
    saved = directory / "config.json"
    if not saved.is_file():
        return False
    try:
        old = stored(saved, config.spec)
    except (BadInput, OSError):
        return False
    return not changed(old, config, free)[0]
