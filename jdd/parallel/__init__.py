"""Many devices: the only room that calls pmap.

Work that is a list of equal items (experts, evaluation nets, expert segments) is split over the
devices; what all items share is replicated. A list that does not divide is padded with copies of
its last item, whose results are dropped (or weigh nothing in a mean).
"""

from __future__ import annotations

from jdd.parallel.devices import memory, pick, temporaries, threads
from jdd.parallel.gradient import MeanGradient
from jdd.parallel.spread import planned, spread

__all__ = ["MeanGradient", "memory", "pick", "planned", "spread", "temporaries", "threads"]
