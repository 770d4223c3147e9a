"""Where images come from: each source returns the same ``Raw`` arrays."""

from __future__ import annotations

from jdd.data.sources.raw import Raw, Request, request_of
from jdd.data.sources.read import read

__all__ = ["Raw", "Request", "read", "request_of"]
