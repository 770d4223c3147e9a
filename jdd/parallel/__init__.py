"""Many devices: the only room that calls pmap.

Work that is a list of equal items (experts, evaluation nets, expert segments) is split over the
devices; what all items share is replicated. A list that does not divide is padded with copies of
its last item, whose results are dropped (or weigh nothing in a mean).
A single training has its batches split instead (``batch.py``).
"""

from __future__ import annotations

from jdd.parallel.batch import everywhere, over_batch, shared_out
from jdd.parallel.devices import memory, pick, temporaries, threads
from jdd.parallel.gradient import MeanGradient
from jdd.parallel.spread import planned, spread

__all__ = ["MeanGradient", "everywhere", "memory", "over_batch", "pick", "planned"]
__all__ += ["shared_out", "spread", "temporaries", "threads"]
