"""The methods by name; a new one is its file and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jdd.errors import BadInput, nearest
from jdd.methods.base import Method, Problem

METHODS = {
    "dc": "jdd.methods.dc",
    "dsa": "jdd.methods.dsa",
    "dm": "jdd.methods.dm",
    "datm": "jdd.methods.datm",
    "frepo": "jdd.methods.frepo",
    "ftd": "jdd.methods.ftd",
    "mtt": "jdd.methods.mtt",
    "ratbptt": "jdd.methods.ratbptt",
    "tesla": "jdd.methods.tesla",
    "dd": "jdd.methods.dd",
    "random": "jdd.methods.random",
    "herding": "jdd.methods.herding",
    "kcenter": "jdd.methods.kcenter",
}


def make(config: Any, problem: Problem) -> Method:
    """Build the method that ``config.method`` names.

    Raises:
      BadInput: no such method.
    """
    if config.method not in METHODS:
        close = nearest(config.method, METHODS)
        hint = f"did you mean {close}?" if close else f"one of {', '.join(METHODS)}"
        raise BadInput("config.method", f"{config.method!r}", hint)
    return import_module(METHODS[config.method]).make(config, problem)
