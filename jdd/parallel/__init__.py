"""Parallel execution over devices: the only package that calls pmap (``over_devices.py``).

A list of equal items (experts, evaluation nets, expert segments) is split over the devices; shared
inputs are replicated. A list whose length the devices do not divide is padded with copies of its
last item, whose results are dropped (or have weight 0 in a mean). A single training splits its
batches instead (``batch.py``).
"""

from __future__ import annotations

from jdd.parallel.across import everyone
from jdd.parallel.batch import everywhere, over_batch, shared_out
from jdd.parallel.devices import memory, pick, temporaries, threads
from jdd.parallel.gradient import MeanGradient
from jdd.parallel.processes import ALONE, Processes, begin
from jdd.parallel.spread import planned, spread

__all__ = ["ALONE", "Processes", "begin"]
__all__ += ["MeanGradient", "everyone", "everywhere", "memory", "over_batch", "pick", "planned"]
__all__ += ["shared_out", "spread", "temporaries", "threads"]
