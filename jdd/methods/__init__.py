"""The methods: their code, found by the specs (``jdd.specs``)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jdd import specs
from jdd.methods.base import Method, Problem
from jdd.schema.common import Common

METHODS = specs.names()


def make(config: Common, problem: Problem, *part: Any) -> Method:
    """Build the method of a resolved config, or that of one of its ``parts`` where it is given.

    Raises:
      BadInput: its spec names no function that exists.
    """
    return config.spec.build(config, problem, *part)


def parts(config: Common, problem: Problem) -> list[Any]:
    """Return the parts that a method makes its set in, one after another; [] for all at once.

    Parts of one ``form`` are made by the same programs; ``name`` is a part's in names of files.
    """
    found = getattr(config.spec.module, "parts", None)
    return list(found(config, problem)) if found else []


def fits(config: Common, teachers: Sequence[Any]) -> None:
    """Refuse teachers that a method cannot work with, before they are trained.

    Raises:
      BadInput: it cannot.
    """
    check = getattr(config.spec.module, "fits", None)
    if check:
        check(teachers)
