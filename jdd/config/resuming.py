"""Changes of a config since its run began: those that a resumed run may make, and the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jdd.errors import BadInput
from jdd.schema.common import Common
from jdd.schema.key import AUTO, show
from jdd.schema.values import flat

# Keys that decide where a run with ``stop=plateau`` ends: resumable in other runs alone.
_OF_PLATEAU = ("steps", "eval.curve", "eval.curve_n")


class Change(NamedTuple):
    """A key whose value differs from the saved one."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"config.{self.name} was {show(self.old)}, now {show(self.new)}"


def changed(
    saved: Mapping[str, Any] | Common, config: Common, free: Collection[str] = ()
) -> tuple[list[Change], list[Change]]:
    """Return the keys that differ from a saved config: those that may not change, those that may.

    Both sides are resolved configs; a missing key counts as its default. ``free`` are further keys
    that may change here, in addition to the resumable ones. A path that counts by its content
    (``Key.content``) may move, but not come or go.
    """
    keys = config.spec.keys
    old, new = flat(saved), flat(config)
    refused: list[Change] = []
    accepted: list[Change] = []
    may_change = {*free, *_resumable(config)}
    for name in {**keys, **old}:
        default = keys[name].default if name in keys else None
        before, after = old.get(name, default), new.get(name, default)
        before = tuple(before) if isinstance(before, list) else before
        # 'auto' depends on the data: it is compared again once they are loaded.
        if name not in old and before == AUTO or after in (before, AUTO):
            continue
        may = name in may_change
        may |= name in keys and bool(keys[name].content) and default not in (before, after)
        (accepted if may else refused).append(Change(name, before, after))
    return refused, accepted


def _resumable(config: Common) -> list[str]:
    """Return the keys that may change when a run of this config is resumed."""
    fixed = _OF_PLATEAU if config.stop == "plateau" else ()
    return [name for name, key in config.spec.keys.items() if key.resumable and name not in fixed]


def validate_resume(
    saved: Mapping[str, Any] | Common,
    config: Common,
    workdir: str = "",
    free: Collection[str] = (),
) -> list[Change]:
    """Return the allowed changes since ``saved``; refuse any other change.

    Raises:
      BadInput: listing the changed keys, and the keys that may change.
    """
    refused, accepted = changed(saved, config, free)
    if refused:
        keys = _resumable(config)
        other = f"another --workdir{_reused(refused, config, workdir)}"
        raise BadInput(
            f"--workdir={workdir}" if workdir else "--workdir",
            "it holds a run of another config: " + ", ".join(map(str, refused)),
            f"set them back, or name {other}; on resuming may change: " + ", ".join(keys),
        )
    return accepted


# Keys that experts are trained by, by the start of their names.
_OF_EXPERTS = ("data.", "net.", "experts.", "source.", "align_corners")


def _reused(changes: list[Change], config: Common, workdir: str) -> str:
    """Return the flag by which another directory reads the experts of this one, if they fit."""
    place = Path(workdir) / "experts"
    if config.experts.dir or not workdir or not place.is_dir():
        return ""
    if any(change.name.startswith(_OF_EXPERTS) or change.name == "method" for change in changes):
        return ""
    return f" with --config.experts.dir={place} to reuse its experts"
