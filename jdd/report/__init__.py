"""``report.html``: a run's results on one self-contained page."""

from jdd.report.page import write

__all__ = ["write"]
