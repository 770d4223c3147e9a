"""Import of distilled sets from other programs, export for other programs."""

from jdd.interop.exchange import FORMATS, export, load
from jdd.interop.figures import Written
from jdd.interop.figures import write as write_figures
from jdd.interop.foreign import Known, NeedsTransform

__all__ = ["FORMATS", "Known", "NeedsTransform", "Written", "export", "load", "write_figures"]
