"""Keys without effect: those that a method does not use, and those that other values leave idle.

Every config has keys that some methods do not use: of experts, ipc of pairs. They stay in
config.json and in identities. ``validate_used`` refuses them where a user gives them,
``as_saved`` leaves runs begun with them as they are.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from jdd import specs
from jdd.config.resolve import replace, stored
from jdd.errors import BadInput
from jdd.schema import latent
from jdd.schema.common import Common
from jdd.schema.experts import EXPERTS_ONLY
from jdd.schema.values import flat
from jdd.specs.base import Spec

PER_CLASS = ("ipc", "ipc_short")
_OF_CLASSES = ("experts.balanced", "experts.cutmix", "experts.augment")  # of labelled images alone


def unused(spec: Spec) -> tuple[str, ...]:
    """Return the keys without effect on a method's runs: of experts, where it trains none; of
    pairs, those that count images of a class.

    A method outside the package may read any key.
    """
    listed = spec.stages
    trained = callable(listed) or "experts" in listed
    if spec.name not in specs.names():
        return ()
    return (() if trained else EXPERTS_ONLY) + (
        (*PER_CLASS, *_OF_CLASSES) if spec.task == "retrieval" else ()
    )


def having(name: str) -> tuple[Spec, ...]:
    """Return the package's methods that use a key."""
    found = (specs.get(method) for method in specs.names())
    return tuple(spec for spec in found if name in spec.keys and name not in unused(spec))


def validate_used(config: Common, given: Collection[str], workdir: Path | None = None) -> None:
    """Refuse a ``given`` key that the config's method does not use.

    A run that is in ``workdir`` already may have been begun with it: the key may not change.

    Raises:
      BadInput: naming the key, and the methods that use it or what to do.
    """
    if workdir is not None and (workdir / "config.json").exists():
        return
    idle = unused(config.spec)
    for name in given:
        if name in idle:
            titles = ", ".join(spec.title for spec in having(name))
            if name in PER_CLASS:
                found = f"{config.spec.title} makes pairs, as many as config.pairs says"
                raise BadInput(f"config.{name}", found, "--config.pairs=20 in its place")
            if name in _OF_CLASSES and config.spec.task == "retrieval":
                found = f"{config.spec.title} learns pairs, which have no classes"
                raise BadInput(f"config.{name}", found, "leave it out")
            found = f"{config.spec.title} trains no experts and does not use it"
            raise BadInput(f"config.{name}", found, f"leave it out (methods that use it: {titles})")
        if (reason := _idle(config, name)) is not None:
            why, remedy = reason
            raise BadInput(f"config.{name}", f"it has no effect: {why}", remedy)


def _idle(config: Common, name: str) -> tuple[str, str] | None:
    """Return why other values of a config leave a key without effect, and what to do; None: not."""
    values, own = flat(config), config.spec.idle
    found = latent.idle(values) | dict(own(values) if own else {})
    for key, reason in found.items():
        if name == key or key.endswith(".") and name.startswith(key):
            return reason
    return None


def as_saved(config: Common, given: Collection[str], workdir: Path) -> Common:
    """Return ``config`` with the keys that its method does not use as the run in ``workdir`` has.

    Identities contain these keys. ``given`` ones stay.

    Raises:
      BadInput: its config.json is not a config of this version of jdd.
    """
    saved, idle = workdir / "config.json", unused(config.spec)
    if not idle or not saved.exists():
        return config
    old = flat(stored(saved, config.spec))
    return replace(config, {n: old[n] for n in idle if n in old and n not in given})
