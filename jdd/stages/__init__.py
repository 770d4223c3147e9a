"""The stages a run is made of; a method's config file names those it wants (``STAGES``)."""

from jdd.stages.base import Estimate, Stage

__all__ = ["Estimate", "Stage"]
