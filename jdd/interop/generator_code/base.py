"""The programs of one architecture."""

from __future__ import annotations

from typing import NamedTuple


class Code(NamedTuple):
    """Python text for PyTorch and for Flax."""

    torch: str
    flax: str
