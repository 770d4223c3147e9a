"""JSON objects on disk: the only reader and writer of a run's state in JSON.

A file has a digest next to it (``digest_records.py``): an edited or damaged one is not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jdd.errors import BadInput
from jdd.storage import digest_records, regular
from jdd.storage.files import write_text


def parse(data: bytes | str, where: str, allowed: str) -> dict[str, Any]:
    """Return the JSON object of a text.

    Raises:
      BadInput: not UTF-8, no JSON, nested too deeply, or no object.
    """
    try:
        found = json.loads(data)
    except UnicodeDecodeError as error:
        raise BadInput(where, f"not UTF-8 (byte {error.start})", allowed) from None
    except RecursionError:
        raise BadInput(where, "JSON nested too deeply", allowed) from None
    except ValueError as error:
        raise BadInput(where, f"not JSON ({error})", allowed) from None
    if not isinstance(found, dict):
        raise BadInput(where, f"JSON, and no object but {type(found).__name__}", allowed)
    return found


def text(path: Path, remedy: str) -> str:
    """Return the text of a file that jdd wrote, as it was written.

    Args:
      remedy: what to do about a damaged file.

    Raises:
      BadInput: it cannot be read, or is not what was written.
    """
    try:
        data = regular.read_bytes(path)
    except OSError as error:
        raise BadInput(str(path), f"cannot be read ({error.strerror})", remedy) from error
    if not digest_records.fits(path, "file", digest_records.of_bytes(data)):
        found = "not as it was written: damaged, or edited since"
        raise BadInput(str(path), found, f"{remedy}; or delete {path.parent / digest_records.NAME}")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(str(path), f"not UTF-8 (byte {error.start})", remedy) from None


def read(path: Path, remedy: str) -> dict[str, Any]:
    """Return the object in a file that jdd wrote.

    Raises:
      BadInput: as ``text`` and ``parse``.
    """
    return parse(text(path, remedy), str(path), remedy)


def recall(path: Path) -> dict[str, Any] | None:
    """Return the object in a file whose content can be made again; None: absent or damaged."""
    if not path.exists():
        return None
    try:
        return read(path, "")
    except BadInput:
        return None


def write(path: Path, value: Mapping[str, Any], indent: int | None = 1) -> Path:
    """Write an object and its digest; does nothing if the file has it already.

    Raises:
      BadInput: ``path`` cannot be written.
    """
    return write_text(path, json.dumps(value, indent=indent) + "\n", recorded=True)


def digest(value: Mapping[str, Any]) -> str:
    """Return the hash of an object's values, however its text is laid out."""
    return digest_records.of_bytes(json.dumps(value, sort_keys=True).encode())
