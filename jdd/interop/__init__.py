"""Import of distilled sets from other programs, export for other programs."""

from jdd.interop.exchange import FORMATS, export, load
from jdd.interop.figures import Written
from jdd.interop.figures import write as write_figures
from jdd.interop.foreign import Known, NeedsTransform
from jdd.interop.torch_data import Examples, torch_dataset

__all__ = [
    "FORMATS",
    "Examples",
    "Known",
    "NeedsTransform",
    "Written",
    "export",
    "load",
    "set_path",
    "torch_dataset",
    "write_figures",
]
