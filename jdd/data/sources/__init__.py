"""Sources of images: each returns the same ``Raw`` arrays."""

from __future__ import annotations

from jdd.data.sources.read import read
from jdd.data.sources.request import Raw, Request, request_of

__all__ = ["Raw", "Request", "read", "request_of"]
