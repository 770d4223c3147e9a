"""Folders that ship with jdd: ``configs/`` and ``sets/``."""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """Return a folder that ships with jdd: in the package, or next to it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / name
    return inside if inside.is_dir() else package.parent / name
