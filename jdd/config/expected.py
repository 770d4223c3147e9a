"""The values that a run of a config would have, as far as they are known before it: for help.

Where settings are fitted to the data, these are the fitted ones. Images of the user's own are read
for that if they are on this machine and their files are few: a run reads them in the same way and
finds them in the cache.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdd.config import fitting, probing
from jdd.config.nearest import Size, rows, size_of
from jdd.config.resolve import Loaded, resolve_auto
from jdd.errors import BadInput
from jdd.schema.common import Common, Data
from jdd.schema.key import AUTO, show
from jdd.schema.values import flat
from jdd.storage import files

LARGEST = 64 << 20  # bytes of files that help reads
UNREAD = "fitted to the images: --mode=estimate reads them and prints it"


class Expected(NamedTuple):
    """Values of a run by dotted name.

    Attributes:
      given: the config's own values, 'auto' among them.
      values: those of the run.
      note: the line on the settings that are fitted to the data; '' if none are.
      open: in words, what a value follows from that is not known yet, by name.
    """

    given: Mapping[str, Any]
    values: Mapping[str, Any]
    note: str
    open: Mapping[str, str]

    def words(self, name: str) -> str:
        """Return a key's value as it is given, with that of the run where it is another one."""
        given = show(self.given[name])
        known = name not in self.open and self.values[name] in (self.given[name], AUTO)
        return given if known else f"{given}   (here: {self.here(name)})"

    def here(self, name: str) -> str:
        """Return the value that a key has in the run, or in words what it follows from."""
        return self.open.get(name, show(self.values[name]))


def expected(loaded: Loaded) -> Expected:
    """Return the values that a run of a config would have; nothing is validated."""
    config, given = loaded.config, flat(loaded.config)
    if not config.data.name:
        return Expected(given, given, "", {})
    if not fitting.may_be_fitted(config):
        return Expected(given, resolve_auto(config)[0], "", {})
    size = None if size_of(config.data.name) else _size(config.data)
    fit = fitting.fitted(config, loaded.given, size)
    if fit is None:
        unread = size is None and size_of(config.data.name) is None and bool(rows(config.spec))
        names = fitting.names(config) - loaded.given if unread else ()
        return Expected(given, resolve_auto(config)[0], "", dict.fromkeys(names, UNREAD))
    applied = fit.applied(config)
    values = resolve_auto(applied, size and size.shape, fit)[0]
    return Expected(given, values, fit.note, _probed(applied, values, loaded))


def _probed(config: Common, values: Mapping[str, Any], loaded: Loaded) -> dict[str, str]:
    """Return in words that a probe chooses keys, by name."""
    names = [] if values["steps"] == AUTO else probing.probed(config, values["steps"])
    return {
        name: f"chosen by a probe that begins at {show(values[name])}"
        for name in names
        if name not in loaded.given
    }


def _size(data: Data) -> Size | None:
    """Return the size of images on this machine; None: they cannot be read, or take long to."""
    from jdd.data import load_raw  # needs NumPy

    place = Path(data.path).expanduser()
    if not data.path or not place.exists() or _bytes(place) > LARGEST:
        return None
    try:
        raw = load_raw(data)
    except BadInput:  # a run reports it
        return None
    images = raw.splits["train"][0]
    return Size(images.shape[1:], len(raw.class_names), len(images))


def _bytes(place: Path) -> int:
    """Return the bytes of a file, or of all files below a folder until they exceed ``LARGEST``."""
    if not place.is_dir():
        return place.stat().st_size
    count = 0
    for top, _, names in files.walk(place):
        for name in names:
            path = os.path.join(top, name)
            count += os.path.getsize(path) if os.path.exists(path) else 0
        if count > LARGEST:
            break
    return count
