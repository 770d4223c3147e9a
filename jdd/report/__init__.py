"""``report.html``: what a run reached, on one page that needs nothing beside it."""

from jdd.report.page import write

__all__ = ["write"]
