"""Specs of the package's methods: one per file, found by the names of the files."""

from __future__ import annotations

import functools
from importlib import import_module
from pathlib import Path

from jdd.errors import BadInput, JddError, nearest
from jdd.specs.base import Spec, validate_spec

__all__ = ["Spec", "get", "names", "title"]

FOLDER = Path(__file__).resolve().parent


@functools.cache
def names() -> tuple[str, ...]:
    """Return the names of the package's methods: those of the files next to this one."""
    files = (path.stem for path in FOLDER.glob("[!_]*.py"))
    return tuple(sorted(name for name in files if name != "base"))


@functools.cache
def get(method: str) -> Spec:
    """Return the spec of a method.

    Raises:
      BadInput: no method of the package has this name, or its file is broken.
    """
    if method not in names():
        near = nearest(method, names())
        hint = f"did you mean {near}? " if near else ""
        raise BadInput("config.method", repr(method), f"{hint}(methods: {', '.join(names())})")
    where = str(FOLDER / f"{method}.py")
    try:
        module = import_module(f"{__name__}.{method}")
    except JddError:
        raise
    except Exception as error:
        found = f"{type(error).__name__}: {error}"
        raise BadInput(where, found, "a spec is Python and defines SPEC") from error
    spec = validate_spec(getattr(module, "SPEC", None), where)
    if spec.name != method:
        raise BadInput(f"{where}: SPEC.name", repr(spec.name), f"{method!r}, the file's name")
    return spec


def title(method: str, own: Spec | None = None) -> str:
    """Return a method's name as its authors write it; an unknown name is returned unchanged.

    ``own`` is the spec of a method outside the package.
    """
    if own is not None and own.name == method:
        return own.title
    return get(method).title if method in names() else method
