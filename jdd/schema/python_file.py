"""Execution of a user's Python file: a config, or a method's code."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import ModuleType

from jdd.errors import BadInput, JddError


def execute(path: Path) -> ModuleType:
    """Run a file and return it as a module.

    Raises:
      BadInput: the file cannot be read or fails, with the line of the failure.
    """
    import hashlib  # 10 ms, and --help runs no file

    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    module = ModuleType(f"jdd_config_{path.stem}_{digest}")
    module.__file__ = str(path)
    try:
        sys.modules[module.__name__] = module  # dataclasses look their module up
        exec(compile(path.read_bytes(), str(path), "exec", dont_inherit=True), module.__dict__)
    except JddError:
        raise
    except Exception as error:  # any failure of a user's file is bad input
        raise broken(path, error) from error
    return module


def broken(path: Path, error: Exception) -> BadInput:
    """Return the error of a user's file that failed, naming the line of the file."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    words = error.msg if isinstance(error, SyntaxError) else error
    at = f" (line {line})" if line else ""
    allowed = "a config file is Python and defines get_config(arg=None)"
    return BadInput(str(path), f"{type(error).__name__}: {words}{at}", allowed)
