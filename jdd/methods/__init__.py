"""Methods: their code, which the specs (``jdd.specs``) refer to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jdd import specs
from jdd.methods import latents
from jdd.methods.base import Method, Problem
from jdd.schema.common import Common

METHODS = specs.names()


def make(config: Common, problem: Problem, *part: Any) -> Method:
    """Build the method of a resolved config, or of one of its ``parts`` if given.

    With ``latent.prior`` it learns latents (``methods/latents.py``).

    Raises:
      BadInput: its spec names a function that does not exist, or as ``latents.read``.
    """

    def build(own: Common) -> Method:
        return config.spec.build(own, problem, *part)

    if (prior := latents.read(config, problem.data)) is None:
        return build(config)
    return latents.wrapped(build, config, problem, prior)


def parts(config: Common, problem: Problem) -> list[Any]:
    """Return the parts in which a method makes its set, in order; [] for all at once.

    Parts of equal ``form`` share compiled programs; ``name`` identifies a part in file names.
    """
    found = getattr(config.spec.module, "parts", None)
    return list(found(config, problem)) if found else []


def validate_teachers(config: Common, teachers: Sequence[Any]) -> None:
    """Refuse teachers that a method cannot use, before they are trained.

    Raises:
      BadInput: from ``validate_teachers`` of the method's module, if it has one.
    """
    validate = getattr(config.spec.module, "validate_teachers", None)
    if validate:
        validate(teachers)


def cost(config: Common, problem: Problem) -> tuple[Callable[[], Any] | None, int, str] | None:
    """Return what to time for the cost of a set that is made without steps, None if not stated.

    A call, or None if it cannot be timed; how many such calls a set takes; and in words what is
    counted. From ``cost`` of the method's module, if it has one.
    """
    found = getattr(config.spec.module, "cost", None)
    return found(config, problem) if found else None
