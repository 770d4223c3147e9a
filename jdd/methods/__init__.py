"""The methods by name; a new one is its file and a line here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import Any

from jdd.errors import BadInput, nearest
from jdd.methods.base import Method, Problem

METHODS = {
    "cda": "jdd.methods.cda",
    "dc": "jdd.methods.dc",
    "dsa": "jdd.methods.dsa",
    "dm": "jdd.methods.dm",
    "datm": "jdd.methods.datm",
    "frepo": "jdd.methods.frepo",
    "ftd": "jdd.methods.ftd",
    "gvbsm": "jdd.methods.gvbsm",
    "mtt": "jdd.methods.mtt",
    "ratbptt": "jdd.methods.ratbptt",
    "tesla": "jdd.methods.tesla",
    "dd": "jdd.methods.dd",
    "random": "jdd.methods.random",
    "rded": "jdd.methods.rded",
    "sre2l": "jdd.methods.sre2l",
    "herding": "jdd.methods.herding",
    "kcenter": "jdd.methods.kcenter",
}


def make(config: Any, problem: Problem, *part: Any) -> Method:
    """Build the method that ``config.method`` names, of one of its ``parts`` where it is given.

    Raises:
      BadInput: no such method.
    """
    return _module(config).make(config, problem, *part)


def parts(config: Any, problem: Problem) -> list[Any]:
    """Return the parts that a method makes its set in, one after another; [] for all at once.

    Parts of one ``form`` are made by the same programs; ``name`` is a part's in names of files.
    """
    found = getattr(_module(config), "parts", None)
    return list(found(config, problem)) if found else []


def fits(config: Any, teachers: Sequence[Any]) -> None:
    """Refuse teachers that a method cannot work with, before they are trained.

    Raises:
      BadInput: it cannot.
    """
    check = getattr(_module(config), "fits", None)
    if check:
        check(teachers)


def _module(config: Any) -> ModuleType:
    if config.method not in METHODS:
        close = nearest(config.method, METHODS)
        hint = f"did you mean {close}?" if close else f"one of {', '.join(METHODS)}"
        raise BadInput("config.method", f"{config.method!r}", hint)
    return import_module(METHODS[config.method])
