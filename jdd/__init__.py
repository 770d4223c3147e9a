"""jdd: dataset distillation in JAX.

``jdd.distill``, ``jdd.evaluate``, ``jdd.study``, ``jdd.compare``, ``jdd.load`` and ``jdd.export``
do what the command line does; ``jdd.make_config`` returns a typed config, ``jdd.torch_dataset`` a
set for PyTorch, ``jdd.retriever`` towers that search pictures by words. They are imported on first
use, so that ``import jdd`` does not wait for JAX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = [
    "DistilledSet",
    "__version__",
    "compare",
    "distill",
    "evaluate",
    "export",
    "load",
    "make_config",
    "retriever",
    "study",
    "torch_dataset",
]

if TYPE_CHECKING:
    from jdd.api import (
        DistilledSet,
        compare,
        distill,
        evaluate,
        export,
        load,
        make_config,
        retriever,
        study,
        torch_dataset,
    )


def __getattr__(name: str) -> Any:
    if name in __all__:
        from jdd import api

        return getattr(api, name)
    raise AttributeError(f"module 'jdd' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
