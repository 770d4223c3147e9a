"""The stages a run is made of; a method's spec names those it needs (``Spec.stages``)."""

from jdd.stages.base import Estimate, Stage

__all__ = ["Estimate", "Stage"]
