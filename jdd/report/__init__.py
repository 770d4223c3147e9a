"""``report.html``: what a run reached, on one page that needs no other file."""

from jdd.report.page import write

__all__ = ["write"]
